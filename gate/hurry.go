package gate

import (
	"context"
	"time"

	"github.com/streamguard/streamguard/connection"
	"github.com/streamguard/streamguard/guard"
)

// asking is ask for a start that finds no room: it asks once more if there may be
// some now, and is in doubt if there may be some soon. It waits for what has been left
// before it came, and not for what is left while it waits. Without a gate it is not known
// who has left.
func (g *Gate) asking(ctx context.Context, ask func(guard.Claim) (guard.Verdict, error)) asks {
	came := time.Now()
	return func(c guard.Claim) (v guard.Verdict, again time.Duration, err error) {
		v, err = ask(c)
		if err != nil || v.Outcome.Pass() || v.Outcome == guard.Revoked || g == nil {
			return v, v.FreeIn, err
		}
		if g.hurry(ctx, &c, &v) {
			if v, err = ask(c); err != nil || v.Outcome.Pass() {
				return v, v.FreeIn, err
			}
		}
		again = v.FreeIn
		if due := g.due(&c, &v); due > 0 && time.Since(came)+due <= connection.Longest {
			if v.Outcome == guard.Rejected || v.Outcome == guard.Doubted && due < again {
				v.Outcome, again = guard.Doubted, due
			}
		}
		return v, again, nil
	}
}

var (
	changing = guard.Paced(300 * time.Millisecond) // how long a client's next channel waits for the end of the one before,
	changed  = guard.Paced(25 * time.Millisecond)  // and how often it looks
)

// hurry closes at once the guards of what a claim's own client has left, and reports
// whether there were any. A box that changes channels asks for the next one before it is
// certain that the last is over. The end of an answer may be a moment away: its client
// has hung up, and its handler is not out yet.
func (g *Gate) hurry(ctx context.Context, c *guard.Claim, v *guard.Verdict) bool {
	if g.Connections == nil || c.Client == 0 {
		return false
	}
	for began := time.Now(); !g.Connections.Hurry(ctx, g.playback(c)); {
		if c.Intent != guard.Play || v.Repeated || time.Since(began) >= changing || !g.sending.lastOf(whose{c.User, c.Client}) {
			return false
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(changed):
		}
	}
	g.Keeper.Reconsider(c.ID)
	return true
}

// due is how long it takes until one of the guards in the way may be closed, and the
// claim is to be made again. It is 0 where none is to be, and for who does not wait.
func (g *Gate) due(c *guard.Claim, v *guard.Verdict) time.Duration {
	if g.Connections == nil || c.Patience == 0 {
		return 0
	}
	here, elsewhere := g.Connections.Due(g.Keeper, v.InTheWay), g.Keeper.Leaving(v.InTheWay)
	if here == 0 || elsewhere != 0 && elsewhere < here {
		return elsewhere
	}
	return here
}

func (g *Gate) playback(c *guard.Claim) *connection.Playback {
	return &connection.Playback{Closer: g.Keeper, ID: c.ID, User: c.User, Device: c.Device, Client: c.Client}
}
