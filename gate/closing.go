package gate

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/streamguard/streamguard/guard"
)

// A playback whose endless answer is over is over itself, unless something else is
// asked for it soon.

var (
	closeAfter = guard.Paced(5 * time.Second)        // its guard is closed
	changing   = guard.Paced(300 * time.Millisecond) // how long a client's next channel waits for the end of the one before,
	changed    = guard.Paced(25 * time.Millisecond)  // and how often it looks
)

// closing is a guard that is closed in a moment.
type closing struct {
	gate    *Gate
	user    string
	client  guard.Client
	id      guard.ID
	proven  chan struct{} // closed when the guard is, by more than the request that made it
	timer   *time.Timer
	release func() // gives back the store
}

type whose struct {
	user   string
	client guard.Client
}

// closings are those of the process: a player may ask again after a reload.
var closings struct {
	size atomic.Int64
	mu   sync.Mutex
	byID map[guard.ID]*closing
	of   map[whose][]*closing
}

// closeSoon has the guard of a passage whose endless answer is over be closed.
func (p *Passage) closeSoon(of *guard.Claim) {
	if p.request.Policy.Reclaim == guard.ReclaimOff || p.gate.sending.last(of.ID) {
		return
	}
	c := &closing{gate: p.gate, user: p.request.User, client: p.request.Client, id: of.ID, proven: make(chan struct{})}
	if p.gate.over.Load() && p.gate.Hold != nil { // nobody else may hold it
		c.release = p.gate.Hold()
	}
	closings.mu.Lock()
	defer closings.mu.Unlock()
	if before := closings.byID[c.id]; before != nil {
		before.drop()
		defer before.letGo()
	}
	if closings.byID == nil {
		closings.byID, closings.of = make(map[guard.ID]*closing), make(map[whose][]*closing)
	}
	closings.byID[c.id] = c
	closings.of[c.whose()] = append(closings.of[c.whose()], c)
	closings.size.Add(1)
	go c.prove(p)
	c.timer = time.AfterFunc(closeAfter, func() {
		if c.leave() {
			c.close(false)
		}
	})
}

func (c *closing) whose() whose { return whose{c.user, c.client} }

// leave reports whether the guard is still to be closed, by who asks.
func (c *closing) leave() bool {
	closings.mu.Lock()
	defer closings.mu.Unlock()
	if closings.byID[c.id] != c {
		return false
	}
	c.drop()
	return true
}

// drop takes it from the closings, whose lock is held.
func (c *closing) drop() {
	closings.size.Add(-1)
	delete(closings.byID, c.id)
	of := slices.DeleteFunc(closings.of[c.whose()], func(other *closing) bool { return other == c })
	if closings.of[c.whose()] = of; len(of) == 0 {
		delete(closings.of, c.whose())
	}
	c.timer.Stop()
}

// prove says of a guard that it is no single request's. That an endless answer was left
// says as much as another request.
func (c *closing) prove(p *Passage) {
	defer close(c.proven)
	if p.answer.lasts {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeAfter)
	defer cancel()
	c.gate.Keeper.Refresh(ctx, c.user, c.id, p.request.judgedBy())
}

func (c *closing) close(hurried bool) {
	defer c.letGo()
	k := c.gate.Keeper
	if c.gate.Stopping != nil && c.gate.Stopping() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeAfter)
	defer cancel()
	<-c.proven
	select {
	case <-k.Closed(): // with its config, a moment ago
		return
	default:
	}
	if closed, err := k.HangUp(ctx, c.user, c.id); closed && err == nil && c.gate.OnClosed != nil {
		c.gate.OnClosed(hurried)
	}
}

func (c *closing) letGo() {
	if c.release != nil {
		c.release()
	}
}

// asked says that something was asked for a playback.
func asked(id guard.ID) {
	if closings.size.Load() == 0 {
		return
	}
	closings.mu.Lock()
	c := closings.byID[id]
	closings.mu.Unlock()
	if c != nil && c.leave() {
		c.letGo()
	}
}

// hurry closes at once what the client of a start that finds no room has just ended,
// and reports whether there was anything. The end of an answer may be a moment away:
// its client has hung up, and its handler is not out yet.
func (g *Gate) hurry(ctx context.Context, c *guard.Claim, v *guard.Verdict) bool {
	if c.Client == 0 || c.Intent != guard.Play {
		return false
	}
	who := whose{c.User, c.Client}
	for began := time.Now(); ; {
		closings.mu.Lock()
		of := slices.Clone(closings.of[who])
		closings.mu.Unlock()
		for _, one := range of {
			if one.id != c.ID && one.leave() {
				one.close(true)
			}
		}
		if len(of) > 0 || v.Repeated || time.Since(began) >= changing || !g.sending.lastOf(who) {
			return len(of) > 0
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(changed):
		}
	}
}
