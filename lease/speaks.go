package lease

import "github.com/streamguard/streamguard/guard"

// A playback whose requests have lost every name is served by the guards of its
// user on the same stream. Which of them served it is remembered beside its lease,
// so that it asks again when that one has ended, and is resumed in its name.
// Beyond maxSpeaks, such a playback is not remembered: its requests ask the store.
const maxSpeaks = 1 << 18 // at most 160 bytes each, with the guard that serves it

// serve notes which guard has served a playback, under the lease that it has of that.
// It reports whether there was room.
func (k *Keeper) serve(id, serves guard.ID, l lease) bool {
	if _, there := k.speaks.Load(id); !there && k.speaks.Size() >= maxSpeaks {
		return false
	}
	k.speaks.Store(id, serves)
	k.served.Store(serves, l)
	return true
}

// servesAnother reports whether a guard serves a playback that has connections of its own.
func (k *Keeper) servesAnother(id guard.ID) bool {
	l, there := k.served.Load(id)
	return there && k.now().since(l.at) < l.lives()
}

// Serving is the guard that serves a playback: another one's if its requests have
// lost every name, and otherwise its own.
func (k *Keeper) Serving(id guard.ID) guard.ID {
	if serves, there := k.speaks.Load(id); there {
		return serves
	}
	return id
}

// speakFor has a claim be in the name of the guard that has served its playback,
// as long as that has its slot for certain.
func (k *Keeper) speakFor(c *guard.Claim, l *lease, p *guard.Policy, now moment) {
	if l.by == byAnother && k.certain(l, p, now) {
		c.For, _ = k.speaks.Load(c.ID)
	}
}

// sweepSpeaks forgets what no lease needs any more.
func (k *Keeper) sweepSpeaks() {
	k.speaks.Range(func(id, _ guard.ID) bool {
		if l, known := k.leases.get(id); !known || l.by != byAnother {
			k.speaks.Delete(id)
		}
		return true
	})
	k.served.Range(func(id guard.ID, _ lease) bool {
		if !k.servesAnother(id) {
			k.served.Delete(id)
		}
		return true
	})
}
