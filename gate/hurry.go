package gate

import (
	"context"
	"time"

	"github.com/streamguard/streamguard/connection"
	"github.com/streamguard/streamguard/guard"
)

// Hurry closes at once the guards of what a claim's client has left a moment ago,
// and reports whether there were any. A box that changes channels asks for the next
// one before it is certain that the last is over.
type Hurry func(ctx context.Context, c *guard.Claim, v *guard.Verdict) bool

// asking is ask for a start that finds no room: it asks once more if there may be
// some now.
func (h Hurry) asking(ctx context.Context, ask func(guard.Claim) (guard.Verdict, error)) func(guard.Claim) (guard.Verdict, error) {
	return func(c guard.Claim) (guard.Verdict, error) {
		v, err := ask(c)
		if err != nil || v.Outcome.Pass() || v.Outcome == guard.Revoked || h == nil || !h(ctx, &c, &v) {
			return v, err
		}
		return ask(c)
	}
}

var (
	changing = guard.Paced(300 * time.Millisecond) // how long a client's next channel waits for the end of the one before,
	changed  = guard.Paced(25 * time.Millisecond)  // and how often it looks
)

// Hurry is that of the gate's connections. The end of an answer may be a moment away:
// its client has hung up, and its handler is not out yet.
func (g *Gate) Hurry(ctx context.Context, c *guard.Claim, v *guard.Verdict) bool {
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

func (g *Gate) playback(c *guard.Claim) *connection.Playback {
	return &connection.Playback{Closer: g.Keeper, ID: c.ID, User: c.User, Device: c.Device, Client: c.Client}
}
