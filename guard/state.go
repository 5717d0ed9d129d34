package guard

import "time"

// A guard has its slot from its making until it is gone. Meanwhile it is
//
//   - active, for Policy.Interval after each refresh: somebody is watching, or was a
//     moment ago;
//   - lapsed, when nobody has refreshed it for that long;
//   - closed, when its client has closed the connections that it was watched on
//     (Store.CloseGuard).
//
// Whatever it is, the next refresh makes it active again. It is gone, and its slot is
// free, when nobody has refreshed it for Policy.TTL, when it is ended (released,
// revoked or replaced), or when a start takes its slot: Policy.Reclaim says whose.

// State is what a guard is at a moment: active, lapsed or closed.
type State string

const (
	Active State = "active"
	Lapsed State = "lapsed"
	Closed State = "closed"
)

// State is what the guard is at a moment of the store's clock.
func (g *Guard) State(now time.Time) State {
	at := *g
	at.lapse(now)
	return at.Listed()
}

// Listed is what a guard was when the store showed it, in a list or in a verdict. No
// caller can know that by a clock of its own: the store's is the only one.
func (g *Guard) Listed() State {
	switch {
	case g.Closed:
		return Closed
	case g.Lapsed:
		return Lapsed
	}
	return Active
}

// lapse notes on a guard whether it has lapsed.
func (g *Guard) lapse(now time.Time) { g.Lapsed = !now.Before(g.ExpiresAt) }

// shown are guards as a store shows them at a moment.
func shown(now time.Time, guards []Guard) []Guard {
	for i := range guards {
		guards[i].lapse(now)
	}
	return guards
}

// Reclaim is whose slots a start may take, at once, when it finds no other room.
type Reclaim uint8

const (
	// ReclaimClosed has it take those of closed guards, the one that was closed first
	// before the others. A lapsed guard keeps its slot: a hidden browser tab is silent
	// for a minute, and its viewer is still there.
	ReclaimClosed Reclaim = iota
	// ReclaimLapsed has it take those of lapsed guards after that, the one that lapsed
	// first before the others.
	ReclaimLapsed
	// ReclaimOff has every guard keep its slot until it is gone.
	ReclaimOff
)

// Takes reports whether a start that finds no other room may take the slot of a guard
// in this state.
func (r Reclaim) Takes(s State) bool {
	switch s {
	case Closed:
		return r != ReclaimOff
	case Lapsed:
		return r == ReclaimLapsed
	}
	return false
}

// MayTake reports whether a start may take the guard's slot when it finds no other room.
func (p *Policy) MayTake(now time.Time, g *Guard) bool { return p.Reclaim.Takes(g.State(now)) }

// SlotEnds is until when a guard has its slot for certain if nobody refreshes it.
func (p *Policy) SlotEnds(g *Guard) time.Time {
	if p.Reclaim == ReclaimLapsed || p.Reclaim == ReclaimClosed && g.Closed {
		return g.ExpiresAt
	}
	return g.RemovedAt
}

// refresh is a sign of life that comes by a node. It reports whether the guard had
// been doubted. One that is refreshed after its closing, or by another node than made
// it, is never closed again: that its connections are closed means nothing.
func (r *record) refresh(now time.Time, p Policy, node uint8) (answered bool) {
	if r.Closed || r.node != node {
		r.flags |= reopened
	}
	answered = !r.doubtedAt.IsZero()
	r.Closed, r.doubtedAt = false, time.Time{}
	r.flags &^= unproven
	r.extend(now, p)
	return answered
}

// extend moves both times on. Neither goes back, whatever the policy of another
// handler is: nodes rely on what they were told.
func (r *record) extend(now time.Time, p Policy) {
	r.ExpiresAt = latest(r.ExpiresAt, now.Add(p.Interval))
	r.RemovedAt = latest(r.RemovedAt, now.Add(p.TTL))
	r.ttl = r.RemovedAt.Sub(now)
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// CloseGuard is Store.CloseGuard at a moment of the store's clock.
func (l *Ledger) CloseGuard(now time.Time, id ID) bool {
	l.Forget(now)
	g := l.find(id, held)
	if g == nil || g.Closed || g.is(reopened) || g.node != l.Node {
		return false
	}
	g.Closed, g.ExpiresAt, g.doubtedAt = true, now, time.Time{}
	g.ttl = g.RemovedAt.Sub(now)
	return true
}
