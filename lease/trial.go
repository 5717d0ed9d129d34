package lease

import (
	"context"
	"strings"
	"sync"

	"github.com/puzpuzpuz/xsync/v4"

	"github.com/streamguard/streamguard/guard"
)

// Trial is a guard that media have made whose answer is not known yet. If none of
// what is asked under it meanwhile is delivered, it goes as if it had never been.
// Each request that is part of a trial has to End it.
type Trial struct {
	keeper   *Keeper
	user     string
	id       guard.ID
	replaced []guard.ID

	mu     sync.Mutex
	asking int           // requests of which it is not known whether they are delivered
	proven bool          // one was
	undone chan struct{} // closed when the guard has gone because none was; nil before
}

// try begins the trial of a guard that was just made. The request that made it is
// part of it from the start.
func (k *Keeper) try(c *guard.Claim, v *guard.Verdict) *Trial {
	t := &Trial{keeper: k, user: strings.Clone(c.User), id: c.ID, replaced: v.Replaced, asking: 1}
	k.trials.Store(c.ID, t)
	return t
}

// join has one more request be part of a trial, and returns nil where its guard has
// been proven. It is not ok where the guard has gone.
func (t *Trial) join() (_ *Trial, ok bool) {
	t.mu.Lock()
	undone, proven := t.undone, t.proven
	if undone == nil && !proven {
		t.asking++
	}
	t.mu.Unlock()
	switch {
	case undone != nil: // what is asked before the store has heard would keep the guard
		<-undone
		return nil, false
	case proven:
		return nil, true
	}
	return t, true
}

// End says whether a request was answered with what it asked for. The first that
// was keeps the guard, the last that was not lets it go. A nil Trial has no end.
func (t *Trial) End(delivered bool) {
	if t == nil {
		return
	}
	t.mu.Lock()
	t.asking--
	goesOn := t.proven || t.asking > 0 && !delivered
	if t.proven = t.proven || delivered; !t.proven && t.asking == 0 {
		t.undone = make(chan struct{})
	}
	t.mu.Unlock()
	k := t.keeper
	switch {
	case goesOn:
		return
	case delivered:
		k.looks.Delete(t.id)
		k.prove(t.id)
	default:
		undone, err := k.Undo(context.Background(), t.user, t.id, t.replaced)
		switch {
		case err != nil:
			k.onError(err)
		case !undone: // something else was asked under it
			k.prove(t.id)
		}
	}
	k.trials.Compute(t.id, func(there *Trial, _ bool) (*Trial, xsync.ComputeOp) {
		if there != t { // its playback has begun another one since
			return there, xsync.CancelOp
		}
		return nil, xsync.DeleteOp
	})
	if t.undone != nil {
		close(t.undone)
	}
}

// prove ends what a lease says of a trial.
func (k *Keeper) prove(id guard.ID) {
	k.leases.update(id, func(l *lease) {
		if l.by == onTrial {
			l.by = byStore
		}
	})
}
