package guard

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// Ledger is one user's account: the guards held, and marks of playbacks lately
// released, revoked or looked at. It is the rules of a guard as plain code, for
// stores that keep guards in Go; redisstore says the same in Lua, in the same
// steps. The zero value is an empty account. Not safe for concurrent use.
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
	ttl  time.Duration // how long the record lives after its last refresh; a mark: after it was made
	kind kind
}

type kind uint8

const (
	held      kind = iota
	looked         // a manifest was, for a playback that has no guard yet
	returned       // a released playback has come back: its next release has no stragglers
	released       // until ExpiresAt stragglers pass
	revoked        // its playback is refused
	forgotten      // released or revoked playbacks, until the last of them would have been forgotten anyway; it has no ID
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
	// 1. A playback that was revoked is refused.
	if r := l.find(c.ID, revoked); r != nil {
		v.FreeIn = r.RemovedAt.Sub(now)
		return Revoked
	}

	// 2. Its own guard stays its own. Without one,
	var own *Guard
	if r := l.find(c.ID, held); r != nil {
		was := r.Guard
		own = &was
	} else {
		// 3. a request that has lost its id is served by the guards of its stream
		// and device, or else speaks for the playback that was looked at there;
		if c.Intent == Share {
			if first := l.share(now, c, p); first != nil {
				v.Guard = *first
				return Refreshed
			}
			if id := l.lookedAt(c); id != nil {
				c.ID, c.Intent = *id, Continue
			}
		}
		// 4. a request that was sent before the playback's release passes;
		if mark := l.find(c.ID, released); mark != nil && mark.precedes(now, c) {
			return Released
		}
		// 5. who resumes may be one of those whose end was forgotten;
		if c.Intent == Resume && l.find(ID{}, forgotten) != nil {
			c.Intent = Continue
		}
		// 6. a playback that was looked at counts as a start: a straggler of another
		// may have taken its slot.
		if c.Intent == Continue && l.find(c.ID, looked) != nil {
			c.Intent = Start
		}
	}

	// 7. What the guard will be needs room under every rule,
	g := Guard{ID: c.ID, CreatedAt: now}
	if own != nil {
		g = *own
	}
	c.writeOn(&g)
	going, replaced, refusing := l.makeRoom(now, own, &g, c.Intent, p)
	if refusing != nil {
		v.refuse(now, *refusing, &g, l.guards(), p)
		return Rejected
	}
	// 8. and a new one needs room in the store, which keeps only so many of one user.
	if own == nil && l.held()-len(going) >= p.bound() {
		return Uncounted
	}

	// 9. The guards that it replaces are revoked.
	if len(replaced) > 0 {
		l.finish(now, replaced, p, revoked)
		v.Replaced = replaced
	}

	// 10. A look leaves a mark; those that have lapsed stay until somebody plays.
	if own == nil && c.Intent == Look {
		l.look(now, g)
		return Vacant
	}
	l.records = slices.DeleteFunc(l.records, func(r record) bool { return r.kind == held && going[r.ID] })

	// 11. Its own guard is refreshed, or a guard is born.
	r := record{Guard: g}
	r.extend(now, p)
	v.Guard = r.Guard
	if own != nil {
		*l.find(c.ID, held) = r
		return Refreshed
	}
	if mark := l.find(c.ID, released); mark != nil {
		mark.kind = returned
	}
	l.drop(c.ID, looked)
	// A guard is born here and nowhere else: every rule that counts it has room
	// for it (7), unless its playback was admitted before and resumes; and no user
	// has more guards than a store keeps (8).
	l.records = append(l.records, r)
	return Admitted
}

// precedes reports whether a request that comes without a guard belongs to the
// time before the release that left the mark.
func (mark *record) precedes(now time.Time, c Claim) bool {
	switch c.Intent {
	case Continue, Share:
		return now.Before(mark.ExpiresAt)
	case Resume:
		return c.Alone == 0 || now.Sub(mark.CreatedAt) <= c.Alone
	}
	return false
}

// share refreshes what the user has on the claim's stream and device, and
// returns the oldest.
func (l *Ledger) share(now time.Time, c Claim, p Policy) (first *Guard) {
	for i := range l.records {
		r := &l.records[i]
		if r.kind == held && r.Stream == c.Stream && r.Device == c.Device {
			r.extend(now, p)
			first = cmp.Or(first, &r.Guard)
		}
	}
	return first
}

// lookedAt is the playback whose manifest was looked at last on the claim's
// stream and device.
func (l *Ledger) lookedAt(c Claim) *ID {
	for i := range slices.Backward(l.records) {
		r := &l.records[i]
		if r.kind == looked && r.Stream == c.Stream && r.Device == c.Device {
			return &r.ID
		}
	}
	return nil
}

// look leaves a mark for Settle. On a device only the last stream that was
// looked at has marks, one for each of its ids.
func (l *Ledger) look(now time.Time, g Guard) {
	if l.find(g.ID, released) != nil {
		return
	}
	l.records = slices.DeleteFunc(l.records, func(r record) bool {
		return r.kind == looked && r.Device == g.Device && (r.Stream != g.Stream || r.ID == g.ID)
	})
	g.CreatedAt, g.RemovedAt = now, now.Add(Settle)
	l.records = append(l.records, record{g, Settle, looked})
	l.forgetMarks(now)
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
	l.finish(now, []ID{id}, p, k)
	return true
}

// finish turns guards into marks of this kind. A mark lives for the policy's ttl, or the guard's if that is longer: for so
// long a node that has not heard of the end may take the guard for lost.
func (l *Ledger) finish(now time.Time, ids []ID, p Policy, k kind) {
	place := make(map[ID]int, len(ids))
	for i, id := range ids {
		place[id] = i
	}
	var guards []record
	again := make(map[ID]bool)
	l.records = slices.DeleteFunc(l.records, func(r record) bool {
		if _, ends := place[r.ID]; !ends || r.kind != held && r.kind != returned {
			return false
		}
		if r.kind == held {
			guards = append(guards, r)
		} else {
			again[r.ID] = true
		}
		return true
	})
	slices.SortFunc(guards, func(a, b record) int { return place[a.ID] - place[b.ID] })
	for _, r := range guards {
		grace, ttl := min(Settle, now.Sub(r.CreatedAt)), max(p.TTL, r.ttl)
		if again[r.ID] {
			grace = 0
		}
		if p.TTL > 0 {
			l.records = append(l.records, record{Guard{ID: r.ID, CreatedAt: now, ExpiresAt: now.Add(grace), RemovedAt: now.Add(ttl)}, ttl, k})
		}
	}
	l.forgetMarks(now)
}

// forgetMarks forgets marks beyond MaxMarks: the oldest looks, or else returns, or
// else releases, or else revocations. A user who starts and stops many playbacks
// does not wash a revocation away. That an end was forgotten is remembered.
func (l *Ledger) forgetMarks(now time.Time) {
	excess, until := l.Len()-l.held()-MaxMarks, now
	for k := looked; k <= revoked && excess > 0; k++ {
		l.records = slices.DeleteFunc(l.records, func(r record) bool {
			if r.kind != k || excess <= 0 {
				return false
			}
			excess--
			if k >= released && r.RemovedAt.After(until) {
				until = r.RemovedAt
			}
			return true
		})
	}
	if before := l.find(ID{}, forgotten); before != nil && !before.RemovedAt.Before(until) || until == now {
		return
	}
	l.drop(ID{}, forgotten)
	l.records = append(l.records, record{Guard{CreatedAt: now, RemovedAt: until}, until.Sub(now), forgotten})
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
func (l *Ledger) Len() (n int) {
	for i := range l.records {
		if l.records[i].kind != forgotten {
			n++
		}
	}
	return n
}

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
