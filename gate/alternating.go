package gate

import (
	"github.com/puzpuzpuz/xsync/v4"

	"github.com/streamguard/streamguard/guard"
)

// clients are those that have asked under tokens lately. Two that take turns under
// one token may be two viewers, to whom one URL was passed on.
type clients struct{ of *xsync.Map[guard.ID, turns] }

// turns are the last two clients under a token, and how often it went back to the
// one before.
type turns struct {
	last, before guard.Client
	back         uint8
}

const manyTurns = 3 // a phone that changes networks goes back once, or twice

func newClients() *clients { return &clients{of: xsync.NewMap[guard.ID, turns]()} }

// alternate reports, once for a token, that with this request its clients have
// taken turns too often for one player.
func (c *clients) alternate(id guard.ID, client guard.Client) bool {
	seen, ok := c.of.Load(id)
	switch {
	case client == 0 || ok && seen.last == client:
		return false
	case !ok && c.of.Size() >= maxRemembered:
		c.of.Range(func(some guard.ID, _ turns) bool {
			c.of.Delete(some)
			return false
		})
	}
	next := turns{last: client, before: seen.last, back: seen.back}
	if ok && seen.before == client && next.back <= manyTurns {
		next.back++
	}
	c.of.Store(id, next)
	return next.back == manyTurns && seen.back < manyTurns
}
