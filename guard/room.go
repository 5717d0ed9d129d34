package guard

import (
	"slices"
	"time"
)

// makeRoom finds the guards that must go so that every rule allows g. own is g
// before the claim, nil if it is new. First go lapsed guards where those may lose
// their slots, the longest lapsed first; then, for a start, those that the rule
// replaces, the oldest first, which are replaced. If that is not enough, refusing
// is the rule that refuses. makeRoom changes nothing.
func (l *Ledger) makeRoom(now time.Time, own, g *Guard, i Intent, p Policy) (going map[ID]bool, replaced []ID, refusing *Rule) {
	if own == nil && i == Resume {
		return nil, nil, nil // an admitted viewer stays admitted
	}
	going = make(map[ID]bool)
	for _, r := range p.AllRules() {
		if l.held() < r.Limit || !r.covers(g, g) || own != nil && r.covers(own, g) {
			continue // there is room for all, the rule is not about g, or counts it already
		}
		others := slices.DeleteFunc(r.beside(g, l.guards()), func(o Guard) bool { return going[o.ID] })
		excess := len(others) - r.Limit + 1
		if p.ReclaimLapsed {
			over := slices.DeleteFunc(slices.Clone(others), func(o Guard) bool { return now.Before(o.ExpiresAt) })
			slices.SortStableFunc(over, func(a, b Guard) int { return a.ExpiresAt.Compare(b.ExpiresAt) })
			for _, o := range over[:min(max(excess, 0), len(over))] {
				going[o.ID] = true
				excess--
			}
		}
		for _, o := range others {
			if excess > 0 && i.Starts() && !going[o.ID] && r.replaces(&o, g) {
				going[o.ID] = true
				replaced = append(replaced, o.ID)
				excess--
			}
		}
		if excess > 0 {
			return nil, nil, &r
		}
	}
	return going, replaced, nil
}

// refuse fills in what a Rejected verdict says of the rule that refuses g.
func (v *Verdict) refuse(now time.Time, r Rule, g *Guard, guards []Guard, p Policy) {
	inTheWay := r.beside(g, guards)
	v.Rule, v.Blocking = r, len(inTheWay)
	v.FreeIn = freeIn(now, inTheWay, r.Limit, p)
	v.InTheWay = inTheWay[:min(len(inTheWay), MaxInTheWay)]
}

// freeIn is how long until the guards leave a slot free under a limit if
// nobody refreshes them, or p.TTL where a limit of 0 leaves none at all.
func freeIn(now time.Time, guards []Guard, limit int, p Policy) time.Duration {
	if limit < 1 || limit > len(guards) {
		return p.TTL
	}
	ends := make([]time.Time, len(guards))
	for i, g := range guards {
		ends[i] = g.RemovedAt
		if p.ReclaimLapsed {
			ends[i] = g.ExpiresAt
		}
	}
	slices.SortFunc(ends, time.Time.Compare)
	return ends[len(guards)-limit].Sub(now)
}
