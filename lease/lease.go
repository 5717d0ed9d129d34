package lease

import (
	"time"

	"github.com/streamguard/streamguard/guard"
)

// lease is what is remembered of a guard. There is no string in it: what a
// refresh needs, the request brings along.
type lease struct {
	at         moment // when the store was last asked
	ttl        uint32 // milliseconds that the guard has its slot for certain from then on, never 0
	stream     uint32 // hash of its stream
	held       uint16 // guards the user held then
	refreshing bool
	by         grant
}

// grant is who says that a playback may go on.
type grant uint8

const (
	byStore   grant = iota
	byNode          // this node, while the store was away; the store has not heard of the playback
	byAnother       // the store, because another playback's guard serves
	onTrial         // the store, for media whose answer is not known yet

	hangingUp     // the store, which is being asked to close the guard
	perhapsClosed // the store, which has not answered whether it has closed the guard since
)

// lives is how long from l.at on the guard has its slot for certain.
func (l *lease) lives() time.Duration { return time.Duration(l.ttl) * time.Millisecond }

// serves is lives for a policy that may take lapsed guards for less, of another
// handler or of a newer configuration.
func (l *lease) serves(p *guard.Policy) time.Duration {
	if p.Reclaim == guard.ReclaimLapsed {
		return min(p.Interval, l.lives())
	}
	return l.lives()
}

// slotTime is how long after its refresh a guard has its slot for certain: while
// it exists, or where lapsed guards may lose theirs, while it is active.
func slotTime(p *guard.Policy) time.Duration {
	if p.Reclaim == guard.ReclaimLapsed {
		return p.Interval
	}
	return p.TTL
}

// moves reports whether a claim is about another stream than the lease, or the
// first that says which.
func (k *Keeper) moves(l *lease, c *guard.Claim) bool {
	return c.Stream != "" && l.stream != k.hash(c.Stream) && (!c.Keeps || l.stream == k.hash(""))
}

// moment is in milliseconds since the Keeper's start. It starts again every 49
// days: since tells which of two came first if they are not half of that apart.
type moment uint32

func (m moment) since(earlier moment) time.Duration {
	return time.Duration(int32(m-earlier)) * time.Millisecond
}

// milliseconds of a ttl. What is longer than 12 days counts as that.
func milliseconds(ttl time.Duration) uint32 {
	return uint32(min(max(ttl.Milliseconds(), 1), 1<<30))
}
