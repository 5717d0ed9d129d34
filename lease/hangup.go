package lease

import (
	"context"
	"errors"
	"time"

	"github.com/streamguard/streamguard/guard"
)

// doubtedLately is how long ago a doubt may have been that nobody has answered yet.
var doubtedLately = guard.Paced(20 * time.Second)

// ErrNotNow is the error of a HangUp that closed nothing, where the next one may.
var ErrNotNow = errors.New("the guard is not to be closed now")

// HangUp closes the guard of a playback whose client has closed its connections, and
// reports whether it did. Without an error, a guard that was not closed never is: it has
// been, or another node has refreshed it. HangUp closes only what the store has granted to
// this very playback, and to no other beside it: neither another's guard, which serves it,
// nor one that serves another, for that has connections of its own. A guard on trial stays
// as it is, and one that is being refreshed, since that was asked for.
//
// What is asked for the playback while the store is asked to close its guard waits for
// the answer. So it comes after the closing and ends it, whichever call the store would
// have taken first.
func (k *Keeper) HangUp(ctx context.Context, user string, id guard.ID) (closed bool, err error) {
	answered := make(chan struct{})
	if _, there := k.hangUps.LoadOrStore(id, answered); there {
		return false, ErrNotNow
	}
	defer func() {
		k.hangUps.Delete(id)
		close(answered)
	}()
	// Who was doubted a moment ago has lost his lease by that, not his guard: only the
	// store knows.
	now, lately := k.now(), moment(doubtedLately.Milliseconds())
	may, known := k.endedSince(id, max(now, lately+1)-lately), false // no guard has ended at moment 0
	k.leases.update(id, func(l *lease) {
		if may = l.by == byStore && !l.refreshing && !k.servesAnother(id); may {
			l.by, l.refreshing, known = hangingUp, true, true
		}
	})
	if !may {
		return false, ErrNotNow
	}
	closed, err = k.Store.CloseGuard(ctx, user, id)
	if closed && err == nil {
		k.forget(id)
		k.forgetLocal(user, id)
		return true, nil
	}
	// The playback is known as it was before; without an answer, for as long as the
	// store is away.
	k.leases.update(id, func(l *lease) {
		if l.by != hangingUp {
			return // an explicit call was under way
		}
		l.by, l.refreshing = byStore, false
		if err != nil {
			l.by = perhapsClosed
		}
	})
	if err == nil && !known {
		err = ErrNotNow
	}
	return false, err
}

// IsBack tells the starts that wait for the end of a playback that it goes on.
func (k *Keeper) IsBack(id guard.ID) { k.waiting.tell(id) }

// hungUp waits until the store has answered whether a playback's guard is closed, where
// it is being asked, and for the next millisecond: what is asked in the same one as an
// ending may be from before it.
func (k *Keeper) hungUp(ctx context.Context, id guard.ID) {
	if answered, ok := k.hangUps.Load(id); ok {
		select {
		case <-answered:
			time.Sleep(time.Millisecond)
		case <-ctx.Done():
		}
	}
}
