package guard

import (
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

// record is a guard, or the mark one left behind: then CreatedAt is when that
// happened and RemovedAt is when it is forgotten.
type record struct {
	Guard
	kind kind
}

type kind uint8

const (
	held kind = iota
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
	if g := l.refresh(now, c, p); g != nil {
		v.Guard = *g
		return Refreshed
	}
	if mark := l.find(c.ID, released); mark != nil && c.Intent.isStraggler(now.Sub(mark.CreatedAt)) {
		return Released
	}
	lapsed, limit := l.lapsed(now, p), p.Limit
	if c.Intent == Resume {
		limit = MaxLimit
	}
	if l.held()-len(lapsed) >= limit {
		v.InTheWay = l.guards()
		v.FreeIn = FreeIn(now, v.InTheWay, p)
		return Rejected
	}
	if c.Intent == Look {
		return Vacant
	}
	for ; l.held() >= limit; lapsed = lapsed[1:] {
		l.drop(lapsed[0], held)
	}
	l.drop(c.ID, released)
	g := Guard{ID: c.ID, User: c.User, Stream: c.Stream, Device: c.Device, CreatedAt: now}
	extend(&g, now, p)
	l.records = append(l.records, record{Guard: g})
	v.Guard = g
	return Admitted
}

// isStraggler reports whether a request so long after its playback's release
// belongs to the time before.
func (i Intent) isStraggler(since time.Duration) bool {
	return i == Resume || (i == Continue || i == Share) && since < Settle
}

// refresh refreshes what the claim already has, and returns the guard that
// speaks for it: its own, or for Share the oldest of the same stream and device.
func (l *Ledger) refresh(now time.Time, c Claim, p Policy) *Guard {
	if r := l.find(c.ID, held); r != nil {
		extend(&r.Guard, now, p)
		if c.Stream != "" {
			r.Stream = c.Stream
		}
		if c.Device != "" {
			r.Device = c.Device
		}
		return &r.Guard
	}
	if c.Intent != Share {
		return nil
	}
	var first *Guard
	for i := range l.records {
		r := &l.records[i]
		if r.kind == held && r.Stream == c.Stream && r.Device == c.Device {
			extend(&r.Guard, now, p)
			if first == nil {
				first = &r.Guard
			}
		}
	}
	return first
}

// Refresh is Store.Refresh at a moment of the store's clock.
func (l *Ledger) Refresh(now time.Time, id ID, p Policy) Verdict {
	l.Forget(now)
	switch {
	case l.find(id, revoked) != nil:
		return Verdict{Outcome: Revoked, Held: l.held()}
	case l.find(id, held) == nil:
		return Verdict{Outcome: Absent, Held: l.held()}
	}
	g := l.refresh(now, Claim{ID: id}, p)
	return Verdict{Outcome: Refreshed, Guard: *g, Held: l.held()}
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
	mark := Guard{ID: id, CreatedAt: now, RemovedAt: now.Add(p.TTL)}
	l.records = append(l.records, record{Guard: mark, kind: k})
	if len(l.records)-l.held() > MaxMarks {
		l.dropMark()
	}
	return true
}

// dropMark forgets the oldest release, or else the oldest revocation: a user
// who starts and stops many playbacks does not wash a revocation away.
func (l *Ledger) dropMark() {
	for _, k := range []kind{released, revoked} {
		if i := slices.IndexFunc(l.records, func(r record) bool { return r.kind == k }); i >= 0 {
			l.records = slices.Delete(l.records, i, i+1)
			return
		}
	}
}

// List is Store.List at a moment of the store's clock.
func (l *Ledger) List(now time.Time) []Guard {
	l.Forget(now)
	return l.guards()
}

// Forget drops the guards and marks whose time is over and reports whether
// nothing is left.
func (l *Ledger) Forget(now time.Time) bool {
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

// lapsed returns the guards that a new playback may replace, longest lapsed first.
func (l *Ledger) lapsed(now time.Time, p Policy) []ID {
	if !p.ReclaimLapsed {
		return nil
	}
	guards := slices.DeleteFunc(l.guards(), func(g Guard) bool { return now.Before(g.ExpiresAt) })
	slices.SortStableFunc(guards, func(a, b Guard) int { return a.ExpiresAt.Compare(b.ExpiresAt) })
	ids := make([]ID, len(guards))
	for i, g := range guards {
		ids[i] = g.ID
	}
	return ids
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

func extend(g *Guard, now time.Time, p Policy) {
	g.ExpiresAt, g.RemovedAt = now.Add(p.Interval), now.Add(p.TTL)
}

// FreeIn is how long until the guards leave a slot free if nobody refreshes
// them, or p.TTL where a limit of 0 leaves none at all.
func FreeIn(now time.Time, guards []Guard, p Policy) time.Duration {
	if p.Limit == 0 {
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
	return ends[len(guards)-p.Limit].Sub(now)
}
