package lease

import (
	"context"
	"sync"
	"time"

	"github.com/streamguard/streamguard/guard"
)

const maxLeaving = 1 << 16 // guards of a generation

var (
	leavingFor = guard.Paced(10 * time.Second) // the least that one is remembered for: as long as any closing takes to be due

	// reaching is how long after a guard is to be closed on another node this one may
	// hear of it.
	reaching = guard.Paced(200 * time.Millisecond)
)

// leaving is when other nodes are to close guards whose clients have left them: what they
// have said lately, and what they have said before.
type leaving struct {
	mu            sync.Mutex
	lately, early map[guard.ID]time.Time
	since         time.Time
}

func (l *leaving) note(n guard.News, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lately == nil || now.Sub(l.since) >= leavingFor {
		l.early, l.lately, l.since = l.lately, make(map[guard.ID]time.Time), now
	}
	if len(l.lately) < maxLeaving {
		l.lately[n.ID] = now.Add(n.ClosedIn)
	}
}

// Leaving is how long it takes until another node may have closed one of some guards,
// because its client has left it. It is 0 where none is known to be about to.
func (k *Keeper) Leaving(guards []guard.Guard) (first time.Duration) {
	l, now := &k.leaving, k.clock()
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range guards {
		id := guards[i].ID
		due, ok := l.lately[id]
		if !ok {
			due = l.early[id]
		}
		if in := due.Add(reaching).Sub(now); in > 0 && (first == 0 || in < first) {
			first = in
		}
	}
	return first
}

// Leaves tells the other nodes of a guard that is closed in so long, if nothing is asked
// for it, so that a start that comes to one of them may wait for it. It is not told where
// very much is under way.
func (k *Keeper) Leaves(id guard.ID, in time.Duration) {
	w, ok := k.Store.(guard.Watcher)
	if !ok {
		return
	}
	select {
	case k.left <- struct{}{}:
		go func() {
			defer func() { <-k.left }()
			ctx, cancel := context.WithTimeout(k.life, in)
			defer cancel()
			w.Tell(ctx, guard.News{ID: id, ClosedIn: in}) // a hint: without it the start is refused
		}()
	default:
	}
}
