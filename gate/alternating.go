package gate

import (
	"encoding/binary"
	"sync"

	"github.com/streamguard/streamguard/guard"
)

// clients are those that have asked under tokens lately. Two that take turns under
// one token may be two viewers, to whom one URL was passed on. Every request under a
// token comes here: a token has one place, from which any other drives it out.
type clients [maxRemembered]struct {
	mu sync.Mutex
	id guard.ID
	turns
}

// turns are the last two clients under a token, and how often it went back to the
// one before.
type turns struct {
	last, before guard.Client
	back         uint8
}

const manyTurns = 3 // a phone that changes networks goes back once, or twice

// alternate reports, once for a token, that with this request its clients have
// taken turns too often for one player.
func (c *clients) alternate(id guard.ID, client guard.Client) bool {
	if client == 0 {
		return false
	}
	place := &c[binary.BigEndian.Uint16(id[14:])%maxRemembered]
	place.mu.Lock()
	defer place.mu.Unlock()
	if place.id != id {
		place.id, place.turns = id, turns{last: client}
		return false
	}
	return place.next(client)
}

// next is one more request. It reports whether with this one the turns are many.
func (t *turns) next(client guard.Client) bool {
	if t.last == client {
		return false
	}
	back := t.back
	if t.before == client && back <= manyTurns {
		t.back++
	}
	t.last, t.before = client, t.last
	return t.back == manyTurns && back < manyTurns
}
