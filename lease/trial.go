package lease

import (
	"context"
	"strings"
	"sync"

	"github.com/streamguard/streamguard/guard"
)

// Trial is a guard that media have made whose answer is not known yet. If none of
// what is asked under it meanwhile is delivered, it goes as if it had never been.
// Each request that is part of a trial has to End it.
type Trial struct {
	keeper   *Keeper
	begun    moment
	user     string
	id       guard.ID
	replaced []guard.ID

	mu     sync.Mutex
	asking int
	over   bool
}

// try begins the trial of a guard that was just made.
func (k *Keeper) try(at moment, c *guard.Claim, v *guard.Verdict) {
	k.trials.Store(c.ID, &Trial{keeper: k, begun: at, user: strings.Clone(c.User), id: c.ID, replaced: v.Replaced})
}

// trial joins a request to the trial of its playback, if there is one.
func (k *Keeper) trial(id guard.ID) *Trial {
	t, ok := k.trials.Load(id)
	if !ok {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over {
		return nil
	}
	t.asking++
	return t
}

// End says whether a request was answered with what it asked for. The first that
// was keeps the guard, the last that was not lets it go. A nil Trial has no end.
func (t *Trial) End(delivered bool) {
	if t == nil {
		return
	}
	t.mu.Lock()
	t.asking--
	over := !t.over && (delivered || t.asking == 0)
	t.over = t.over || over
	t.mu.Unlock()
	if !over {
		return
	}
	k := t.keeper
	k.trials.Delete(t.id)
	if delivered {
		k.prove(t.id)
		return
	}
	undone, err := k.Store.Undo(context.Background(), t.user, t.id, t.replaced)
	if err != nil {
		k.onError(err)
	}
	if undone {
		k.forget(t.id)
	}
	k.prove(t.id)
}

// prove ends what a lease says of a trial.
func (k *Keeper) prove(id guard.ID) {
	k.leases.update(id, func(l *lease) {
		if l.by == onTrial {
			l.by = byStore
		}
	})
}

// sweepTrials ends those of which no request is left, because their clients hung up.
func (k *Keeper) sweepTrials(now moment) {
	k.trials.Range(func(id guard.ID, t *Trial) bool {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.asking == 0 && now.since(t.begun) >= sweepEvery {
			t.over = true
			k.trials.Delete(id)
			k.prove(id)
		}
		return true
	})
}
