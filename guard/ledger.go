package guard

import (
	"math"
	"slices"
	"time"
)

// Ledger is one user's account: the guards held, and marks of playbacks lately
// released or revoked. It is the rules of a guard as plain code, for stores
// that keep guards in Go; redisstore says the same in Lua. The zero value is
// an empty account. Not safe for concurrent use.
type Ledger struct {
	records []record // oldest first
}

// NewLedger returns the account of a user who holds these guards, oldest first.
func NewLedger(guards []Guard) *Ledger {
	l := &Ledger{records: make([]record, len(guards))}
	for i, g := range guards {
		l.records[i] = record{Guard: g, ttl: math.MaxInt64} // not known
	}
	return l
}

// record is a guard, or the mark one left behind: then CreatedAt is when that
// happened and RemovedAt is when it is forgotten.
type record struct {
	Guard
	ttl  time.Duration // it was refreshed, or made, this long before RemovedAt
	kind kind
}

type kind uint8

const (
	held   kind = iota
	looked      // a manifest was, for a playback that has no guard yet
	released
	revoked
)

// Acquire is Store.Acquire at a moment of the store's clock.
func (l *Ledger) Acquire(now time.Time, c Claim, p Policy) Verdict {
	l.Forget(now)
	v := Verdict{Limit: p.Limit}
	v.Outcome = l.acquire(now, c, p, &v)
	v.Held = l.held()
	return v
}

func (l *Ledger) acquire(now time.Time, c Claim, p Policy, v *Verdict) Outcome {
	if r := l.find(c.ID, revoked); r != nil {
		v.FreeIn = r.RemovedAt.Sub(now)
		return Revoked
	}
	g := Guard{ID: c.ID, CreatedAt: now}
	own := l.find(c.ID, held)
	if own != nil {
		g = own.Guard
	} else if first := l.share(now, c, p); first != nil {
		v.Guard = *first
		return Refreshed
	} else if id := l.lookedAt(c); id != nil {
		c.ID, c.Intent, g.ID = *id, Continue, *id
	} else if mark := l.find(c.ID, released); mark != nil && c.isStraggler(now.Sub(mark.CreatedAt)) {
		return Released
	}
	c.writeOn(&g)

	intent := c.Intent
	if intent == Continue && l.find(c.ID, looked) != nil {
		intent = Start // a straggler of the playback before may have taken the room
	}
	lapsed, replaced, refusing := l.makeRoom(now, &g, intent, p)
	if refusing != nil {
		v.Refuse(now, *refusing, l.guards(), c, p)
		return Rejected
	}
	for _, id := range replaced {
		l.Revoke(now, id, p)
	}
	v.Replaced = replaced
	if own == nil && c.Intent == Look {
		l.look(now, g)
		return Vacant
	}
	for _, id := range lapsed {
		l.drop(id, held)
	}
	r := record{Guard: g}
	r.extend(now, p)
	v.Guard = r.Guard
	if own != nil {
		*l.find(c.ID, held) = r
		return Refreshed
	}
	l.drop(c.ID, released)
	l.drop(c.ID, looked)
	l.records = append(l.records, r)
	return Admitted
}

// look leaves a mark for Settle. On a device the last stream that was looked at
// has it: under whichever of several ids.
func (l *Ledger) look(now time.Time, g Guard) {
	if l.find(g.ID, released) != nil {
		return
	}
	l.records = slices.DeleteFunc(l.records, func(r record) bool {
		return r.kind == looked && r.Device == g.Device && (r.Stream != g.Stream || r.ID == g.ID)
	})
	g.CreatedAt, g.RemovedAt = now, now.Add(Settle)
	l.mark(record{g, Settle, looked})
}

// makeRoom finds what has to go before every rule allows the guard: the
// longest lapsed where lapsed guards may lose their slots, then the oldest
// where a start replaces them. It changes nothing. Where that is not enough,
// refusing is the rule.
func (l *Ledger) makeRoom(now time.Time, g *Guard, i Intent, p Policy) (lapsed, replaced []ID, refusing *Rule) {
	own := l.find(g.ID, held)
	rules := p.AllRules()
	if own == nil && i == Resume {
		rules = []Rule{{Limit: MaxLimit}}
	}
	for _, r := range rules {
		if l.held() < r.Limit || !r.covers(g, g) || own != nil && r.covers(&own.Guard, g) {
			continue // room for all, no concern of the rule, or in it already
		}
		others := slices.DeleteFunc(r.beside(g, l.guards()), func(o Guard) bool {
			return slices.Contains(lapsed, o.ID) || slices.Contains(replaced, o.ID)
		})
		excess := len(others) - r.Limit + 1
		if p.ReclaimLapsed {
			over := slices.DeleteFunc(slices.Clone(others), func(o Guard) bool { return now.Before(o.ExpiresAt) })
			slices.SortStableFunc(over, func(a, b Guard) int { return a.ExpiresAt.Compare(b.ExpiresAt) })
			for _, o := range over {
				if excess > 0 {
					lapsed = append(lapsed, o.ID)
					excess--
				}
			}
		}
		for _, o := range others {
			if excess > 0 && i.Starts() && r.replaces(&o, g) && !slices.Contains(lapsed, o.ID) {
				replaced = append(replaced, o.ID)
				excess--
			}
		}
		if excess > 0 {
			return nil, nil, &r
		}
	}
	return lapsed, replaced, nil
}

// isStraggler reports whether a request so long after its playback's release
// belongs to the time before.
func (c *Claim) isStraggler(since time.Duration) bool {
	switch c.Intent {
	case Continue, Share:
		return since < Settle
	case Resume:
		return c.Alone == 0 || since <= c.Alone
	}
	return false
}

// share refreshes what the user has on the claim's stream and device, for a
// claim that shares it, and returns the oldest.
func (l *Ledger) share(now time.Time, c Claim, p Policy) (first *Guard) {
	if c.Intent != Share {
		return nil
	}
	for i := range l.records {
		r := &l.records[i]
		if r.kind == held && r.Stream == c.Stream && r.Device == c.Device {
			r.extend(now, p)
			if first == nil {
				first = &r.Guard
			}
		}
	}
	return first
}

// lookedAt is the playback that a claim which has lost its id begins: the one
// whose manifest was looked at last on the claim's stream and device.
func (l *Ledger) lookedAt(c Claim) *ID {
	for i := range slices.Backward(l.records) {
		r := &l.records[i]
		if c.Intent == Share && r.kind == looked && r.Stream == c.Stream && r.Device == c.Device {
			return &r.ID
		}
	}
	return nil
}

// Refresh is Store.Refresh at a moment of the store's clock.
func (l *Ledger) Refresh(now time.Time, id ID, p Policy) Verdict {
	l.Forget(now)
	v := Verdict{Outcome: Absent, Held: l.held()}
	if l.find(id, revoked) != nil {
		v.Outcome = Revoked
	} else if r := l.find(id, held); r != nil {
		r.extend(now, p)
		v.Outcome, v.Guard = Refreshed, r.Guard
	}
	return v
}

// Release is Store.Release at a moment of the store's clock.
func (l *Ledger) Release(now time.Time, id ID, p Policy) bool {
	return l.end(now, id, p, released)
}

// Revoke is Store.Revoke at a moment of the store's clock.
func (l *Ledger) Revoke(now time.Time, id ID, p Policy) bool {
	return l.end(now, id, p, revoked)
}

func (l *Ledger) end(now time.Time, id ID, p Policy, k kind) bool {
	l.Forget(now)
	if l.find(id, held) == nil {
		return false
	}
	l.drop(id, held)
	l.mark(record{Guard{ID: id, CreatedAt: now, RemovedAt: now.Add(p.TTL)}, p.TTL, k})
	return true
}

// mark adds a mark. Of too many it forgets the oldest look, or else release, or
// else revocation: a user who starts and stops many playbacks does not wash a
// revocation away.
func (l *Ledger) mark(r record) {
	l.records = append(l.records, r)
	if len(l.records)-l.held() <= MaxMarks {
		return
	}
	for _, k := range []kind{looked, released, revoked} {
		if i := slices.IndexFunc(l.records, func(r record) bool { return r.kind == k }); i >= 0 {
			l.records = slices.Delete(l.records, i, i+1)
			return
		}
	}
}

// List is Store.List at a moment of the store's clock. It changes nothing.
func (l *Ledger) List(now time.Time) []Guard {
	as := Ledger{slices.Clone(l.records)}
	as.Forget(now)
	return as.guards()
}

// Forget drops the guards and marks whose time is over and reports whether
// nothing is left. Where the clock has gone back, and a record was refreshed in
// the future, it counts as refreshed now: nothing outlives its ttl because of a
// clock.
func (l *Ledger) Forget(now time.Time) bool {
	for i := range l.records {
		r := &l.records[i]
		if left := r.RemovedAt.Sub(now); left > r.ttl {
			r.ExpiresAt, r.RemovedAt = r.ExpiresAt.Add(r.ttl-left), now.Add(r.ttl)
			if r.CreatedAt.After(now) {
				r.CreatedAt = now
			}
		}
	}
	l.records = slices.DeleteFunc(l.records, func(r record) bool { return !now.Before(r.RemovedAt) })
	return len(l.records) == 0
}

// Len is how many guards and marks the ledger holds.
func (l *Ledger) Len() int { return len(l.records) }

func (l *Ledger) find(id ID, k kind) *record {
	for i := range l.records {
		if l.records[i].ID == id && l.records[i].kind == k {
			return &l.records[i]
		}
	}
	return nil
}

func (l *Ledger) drop(id ID, k kind) {
	l.records = slices.DeleteFunc(l.records, func(r record) bool { return r.ID == id && r.kind == k })
}

func (l *Ledger) held() (n int) {
	for i := range l.records {
		if l.records[i].kind == held {
			n++
		}
	}
	return n
}

func (l *Ledger) guards() []Guard {
	guards := make([]Guard, 0, len(l.records))
	for _, r := range l.records {
		if r.kind == held {
			guards = append(guards, r.Guard)
		}
	}
	return guards
}

func (r *record) extend(now time.Time, p Policy) {
	r.ExpiresAt, r.RemovedAt, r.ttl = now.Add(p.Interval), now.Add(p.TTL), p.TTL
}
