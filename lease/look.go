package lease

import (
	"hash/maphash"
	"reflect"
	"strings"

	"github.com/puzpuzpuz/xsync/v4"

	"github.com/streamguard/streamguard/guard"
)

// maxLooks is how many playbacks' manifests are remembered. They are bounded apart
// from denials, so that no number of free slots makes a refusal forgotten.
const maxLooks = 1 << 17 // at most 500 bytes each

// look is what is remembered of a playback of which no media have come yet: which
// stream its last manifest was for, and that there was a slot for it. That is
// told again for as long as denials are, so that the next manifests of a start cost
// nothing.
type look struct {
	at     moment
	stream string
	vacant bool
	anew   bool
	claim  uint64 // hash of all that was judged,
	policy guard.Policy
	held   int
}

// rememberVacancy keeps in mind that there was a slot for a playback.
func (k *Keeper) rememberVacancy(at moment, c *guard.Claim, p *guard.Policy, held int) {
	if _, there := k.looks.Load(c.ID); there || k.looks.Size() < maxLooks {
		k.looks.Store(c.ID, look{at, strings.Clone(c.Stream), true, c.Anew, k.hashOf(*c), *p, held})
	}
}

// vacant is the verdict of a manifest for which there was a slot a moment ago.
func (k *Keeper) vacant(c *guard.Claim, p *guard.Policy) (v guard.Verdict, ok bool) {
	if c.Intent != guard.Look {
		return v, false
	}
	l, ok := k.looks.Load(c.ID)
	if !ok || !l.vacant || c.Anew && !l.anew || k.now().since(l.at) >= denialTime || l.claim != k.hashOf(*c) || !reflect.DeepEqual(&l.policy, p) {
		return v, false
	}
	return guard.Verdict{Outcome: guard.Vacant, Held: l.held, Limit: p.Limit, Repeated: true}, true
}

// LookedAt is the stream that a playback's last manifest was for, as far as this
// node knows.
func (k *Keeper) LookedAt(id guard.ID) (stream string, ok bool) {
	l, ok := k.looks.Load(id)
	return l.stream, ok
}

// forgetVacancy has the next manifest of a playback ask the store.
func (k *Keeper) forgetVacancy(id guard.ID) {
	k.looks.Compute(id, func(l look, there bool) (look, xsync.ComputeOp) {
		if !there || !l.vacant {
			return l, xsync.CancelOp
		}
		l.vacant = false
		return l, xsync.UpdateOp
	})
}

func (k *Keeper) sweepLooks(now moment) {
	k.looks.Range(func(id guard.ID, l look) bool {
		if now.since(l.at) >= l.policy.TTL {
			k.looks.Delete(id)
		}
		return true
	})
}

// hashOf is of all that a claim is judged by: who asks for what.
func (k *Keeper) hashOf(c guard.Claim) uint64 {
	return maphash.Comparable(k.seed, guard.Claim{User: c.User, ID: c.ID, Path: c.Path, Stream: c.Stream, Device: c.Device, Labels: c.Labels, Client: c.Client})
}
