package guard

import (
	"slices"
	"time"
)

// room is what has to go so that every rule allows a guard.
type room struct {
	going     map[ID]flag // with what their marks are to say
	taken     []ID        // of those, the ones that are closed or lapsed,
	doubted   []ID        // the ones that were doubted in vain
	thrownOut []ID        // and those that a rule replaces,
	by        *Rule       // the last such rule
	refusing  *Rule       // if all that is not enough,
	missing   int         // and how many more would have to go for that rule
}

// makeRoom finds the guards that must go so that every rule allows g. own is g
// before the claim, nil if it is new. First go closed guards and then lapsed ones, as
// far as those may lose their slots, the longest over first; then guards that were
// doubted for long enough; then, unless the claim only resumes, those that the rule
// replaces, the oldest first. makeRoom changes nothing.
func (l *Ledger) makeRoom(now time.Time, own, g *Guard, c *Claim, p Policy) (room room) {
	if own == nil && c.Intent == Resume {
		return room // an admitted viewer stays admitted
	}
	room.going = make(map[ID]flag)
	for _, r := range p.AllRules() {
		if l.held() < r.Limit || !r.covers(g, g) || own != nil && r.covers(own, g) {
			continue // there is room for all, the rule is not about g, or counts it already
		}
		others := slices.DeleteFunc(r.beside(g, l.guards()), func(o Guard) bool { return room.goes(o.ID) })
		excess := len(others) - r.Limit + 1
		goes := func(o *Guard, where *[]ID, f flag) {
			room.going[o.ID], *where = f, append(*where, o.ID)
			excess--
		}
		for _, o := range l.takeable(now, others, p) {
			switch {
			case excess <= 0:
			case r.replaces(&o, g): // as it would be without having closed or lapsed, but nobody was watching
				goes(&o, &room.taken, 0)
			default:
				goes(&o, &room.taken, taken)
			}
		}
		for i := range l.records {
			o := &l.records[i]
			if excess > 0 && !room.goes(o.ID) && o.isOver(now, g, c) && r.covers(&o.Guard, g) {
				goes(&o.Guard, &room.doubted, 0)
			}
		}
		for _, o := range others {
			switch {
			case excess <= 0 || c.Intent == Resume || room.goes(o.ID) || !r.replaces(&o, g):
				continue
			case c.Client != 0 && o.Client != 0 && c.Client != o.Client:
				goes(&o, &room.thrownOut, watched)
			default:
				goes(&o, &room.thrownOut, 0)
			}
			room.by = &r
		}
		if excess > 0 {
			room.refusing, room.missing = &r, excess
			return room
		}
	}
	return room
}

func (room *room) goes(id ID) bool {
	_, goes := room.going[id]
	return goes
}

// takeable are those of the guards whose slots a start may take: closed ones, then
// lapsed ones, the longest over first.
func (l *Ledger) takeable(now time.Time, guards []Guard, p Policy) []Guard {
	over := slices.DeleteFunc(slices.Clone(guards), func(g Guard) bool { return !p.MayTake(now, &g) })
	slices.SortStableFunc(over, func(a, b Guard) int {
		switch {
		case a.Closed == b.Closed:
			return a.ExpiresAt.Compare(b.ExpiresAt)
		case a.Closed:
			return -1
		}
		return 1
	})
	return over
}

// isOver reports whether a guard has been doubted for as long as a start of what
// may be the same viewer is to wait.
func (r *record) isOver(now time.Time, g *Guard, c *Claim) bool {
	return c.Patience > 0 && !r.doubtedAt.IsZero() && r.ID != g.ID && r.same(g) && !now.Before(r.doubtedAt.Add(c.Patience))
}

// refuse fills in what a Rejected verdict says of the rule that refuses g.
func (v *Verdict) refuse(now time.Time, r Rule, g *Guard, guards []Guard, p Policy) {
	inTheWay := r.beside(g, guards)
	v.Rule, v.Blocking = r, len(inTheWay)
	v.FreeIn = freeIn(now, inTheWay, r.Limit, p)
	v.InTheWay = shown(now, inTheWay[:min(len(inTheWay), MaxInTheWay)])
}

// freeIn is how long until the guards leave a slot free under a limit if
// nobody refreshes them, or p.TTL where a limit of 0 leaves none at all.
func freeIn(now time.Time, guards []Guard, limit int, p Policy) time.Duration {
	if limit < 1 || limit > len(guards) {
		return p.TTL
	}
	ends := make([]time.Time, len(guards))
	for i := range guards {
		ends[i] = p.SlotEnds(&guards[i])
	}
	slices.SortFunc(ends, time.Time.Compare)
	return ends[len(guards)-limit].Sub(now)
}
