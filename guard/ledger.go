package guard

import (
	"math"
	"slices"
	"time"
)

// Ledger is one user's account: the guards held, and marks of playbacks that
// lately were released, replaced or revoked. It is the rules of a guard as plain
// code, for stores that keep guards in Go; redisstore says the same in Lua, in the
// same steps. The zero value is an empty account. Not safe for concurrent use.
type Ledger struct {
	Node    uint8    // which of the nodes asks, 1 to 255, where they are told apart
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
	ttl       time.Duration // how long the record lives after its last refresh; a mark: after it was made
	kind      kind
	flags     flag
	returns   uint8     // how often playbacks of this stream have come back from a replacement
	doubtedAt time.Time // zero of a guard that is not
	node      uint8     // of a guard: which made it
}

type kind uint8

const (
	held      kind = iota
	returned       // a released playback has come back: its next release has no stragglers
	released       // until ExpiresAt stragglers pass
	replaced       // its playback is refused, until it starts anew
	revoked        // its playback is refused
	forgotten      // ends of playbacks, until the last of them would have been forgotten anyway; it has no ID
)

// flag is what else is known of a record.
type flag uint16

const (
	named    flag = 1 << iota // media of the guard's own have come under its id
	nameless                  // it was made for a request without a name: it is its client's
	unproven                  // nothing was asked under it but what made it
	watched                   // of replaced: somebody was watching, for it has refused him, or another client took his slot
	lifted                    // of replaced: its playback has started anew
	parted                    // of replaced: requests without a name are another start's now
	taken                     // of replaced: it was closed or lapsed, and a start took its slot where nobody is replaced
	reopened                  // it is not to be closed: it has been, or another node has refreshed it

	long flag = 256 // its requests are long ones: it serves no other path of its client
)

func (r *record) is(f flag) bool { return r.flags&f != 0 }

// Acquire is Store.Acquire at a moment of the store's clock.
func (l *Ledger) Acquire(now time.Time, c Claim, p Policy) Verdict {
	l.Forget(now)
	v := Verdict{Limit: p.Limit}
	v.Outcome = l.acquire(now, c, p, &v)
	v.Held = l.held()
	if v.Guard.ID != (ID{}) {
		v.Guard.lapse(now)
		v.FreeIn = p.SlotEnds(&v.Guard).Sub(now)
	}
	return v
}

func (l *Ledger) acquire(now time.Time, c Claim, p Policy, v *Verdict) Outcome {
	// 0. The path of a long answer is its playback's name.
	if c.Nameless && c.Path != (ID{}) && l.first(func(r *record) bool { return r.ID == c.Path && r.kind != returned }) != nil {
		c.ID, c.Nameless, c.Named, c.Long = c.Path, false, true, true
	}

	// 1. A playback that was revoked is refused, and one that was replaced until it
	// starts anew, or nobody is to be refused; one whose slot was taken only where there
	// is no room (6). Requests without a name are another matter (3).
	if c.Anew || p.Observe {
		l.lift(&c, !c.Reloads || p.Observe)
	}
	var lost *record // its mark, where its slot was taken
	if mark := l.stopping(c.ID); mark != nil && !c.Nameless {
		if !mark.is(taken) {
			return l.stop(now, mark, p, v)
		}
		lost = mark
	}

	// 2. Its own guard stays its own; that of a long answer may have been made under
	// its client's name. Without one,
	own := l.find(c.ID, held)
	if own == nil && c.Long {
		own = l.rename(&c)
	}
	if own == nil && c.Nameless {
		// 3. a request without a name is served by the guards of its stream and
		// device, or by one that may be on them, or is refused with the playback that
		// was ended there. Where the store has lost the guard that served it before,
		// it speaks for that;
		if first := l.share(now, &c, p, v); first != nil {
			v.Guard = first.Guard
			return Refreshed
		}
		if own = l.first(func(r *record) bool { return r.kind == held && r.may(&c) }); own != nil {
			c.ID = own.ID
		} else if mark := l.ended(now, &c); mark != nil && mark.kind == released {
			return Released
		} else if mark != nil && !mark.is(taken) {
			return l.stop(now, mark, p, v)
		} else if mark != nil {
			lost = mark
		} else if c.For != (ID{}) && l.first(func(r *record) bool { return r.ID == c.For }) == nil {
			c.ID, c.Nameless, c.Intent = c.For, false, Resume
		}
	}
	if own == nil {
		// 4. a request that was sent before the playback's release passes;
		if mark := l.find(c.ID, released); mark != nil && mark.precedes(now, &c) {
			return Released
		}
		// 5. who resumes may be one of those whose end was forgotten, or was replaced
		// and has started anew since, elsewhere.
		if c.Intent == Resume && (l.find(ID{}, forgotten) != nil || l.find(c.ID, replaced) != nil) {
			c.Intent = Play
		}
	}

	// 6. What the guard will be needs room under every rule,
	g, was := Guard{ID: c.ID, CreatedAt: now, Client: c.Client}, (*Guard)(nil)
	if own != nil {
		g, was = own.Guard, &own.Guard
	}
	c.writeOn(&g)
	returns := l.returns(&g)
	room := l.makeRoom(now, was, &g, &c, p)
	if lost != nil && (room.refusing != nil || len(room.thrownOut) > 0) {
		return l.stop(now, lost, p, v)
	}
	if room.refusing == nil && len(room.thrownOut) > 0 && returns > MaxReturns {
		room.refusing, v.Lately = room.by, true
	}
	if room.refusing != nil {
		v.refuse(now, *room.refusing, &g, l.guards(), p)
		if v.Lately {
			v.FreeIn = l.fight(now, &g, p)
			return Rejected
		}
		return l.doubt(now, &room, &g, &c, v)
	}
	// 7. and a new one needs room in the store, which keeps only so many of one user.
	if own == nil && l.held()-len(room.going) >= p.bound() {
		return Uncounted
	}

	// 8. A look leaves all as it is: its own guard stays where it is if another
	// would have to go.
	if c.Intent == Look {
		if own == nil {
			return Vacant
		}
		if len(room.going) > 0 {
			g, room.going, room.taken, room.doubted, room.thrownOut = own.Guard, nil, nil, nil, nil
		}
	}

	// 9. What has to go goes. The playbacks that lose their slots to another are refused.
	v.Replaced, v.Taken = slices.Concat(room.taken, room.doubted, room.thrownOut), len(room.taken)
	if len(v.Replaced) > 0 {
		l.finish(now, v.Replaced, p, replaced, room.going)
	}

	// 10. Its own guard is refreshed, or a guard is born.
	var says flag
	if c.Named {
		says |= named
	}
	if c.Long {
		says |= long
	}
	if own = l.find(c.ID, held); own != nil {
		own.Guard = g
		own.flags |= says
		if c.Short && own.is(long) {
			own.flags = own.flags&^(long|named) | nameless
		}
		if !own.is(named) || !c.Nameless || own.Closed {
			v.Answered = own.refresh(now, p, l.Node)
		}
		v.Guard = own.Guard
		return Refreshed
	}
	born := record{Guard: g, returns: returns, node: l.Node, flags: says}
	if c.Nameless {
		born.flags |= nameless
	}
	if c.Intent == Play && (c.Named || c.Nameless) {
		born.flags |= unproven
	}
	born.extend(now, p)
	v.Guard = born.Guard
	if mark := l.find(c.ID, released); mark != nil {
		mark.kind = returned
	}
	if mark := l.find(c.ID, replaced); mark != nil {
		mark.flags |= lifted
	}
	// A guard is born here and nowhere else: every rule that counts it has room
	// for it (6), unless its playback was admitted before and resumes; and no user
	// has more guards than a store keeps (7).
	l.records = append(l.records, born)
	return Admitted
}

// lift has a playback that starts anew no longer be stopped by its replacement,
// nor the media without a name of its stream and device; where somebody was thrown
// out who was watching, only if that is said to be no matter.
func (l *Ledger) lift(c *Claim, evenWatched bool) {
	for i := range l.records {
		r := &l.records[i]
		switch {
		case r.kind != replaced || r.is(watched) && !evenWatched:
		case r.ID == c.ID:
			r.flags |= lifted
		case r.may(c):
			r.flags |= parted
		}
	}
}

// thrownOut reports whether a record is of a playback that another has thrown out.
func (r *record) thrownOut() bool { return r.kind == replaced && !r.is(taken) }

// stops reports whether a record refuses its playback.
func (r *record) stops() bool { return r.kind == revoked || r.kind == replaced && !r.is(lifted) }

// stop refuses a request by a mark. Who is refused by a replacement once the news
// of it is out is watched by somebody, and the mark stays as long as that goes on.
func (l *Ledger) stop(now time.Time, mark *record, p Policy, v *Verdict) Outcome {
	if mark.kind == revoked {
		v.FreeIn = mark.RemovedAt.Sub(now)
		return Revoked
	}
	if now.Sub(mark.CreatedAt) > Watched {
		mark.flags |= watched
	}
	mark.stay(now, p)
	v.FreeIn = mark.RemovedAt.Sub(now)
	return Replaced
}

// stay keeps a mark for another ttl, when less than half of that is left.
func (r *record) stay(now time.Time, p Policy) {
	if r.RemovedAt.Sub(now) < p.TTL/2 {
		r.RemovedAt = now.Add(p.TTL)
		r.ttl = p.TTL
	}
}

// rename gives the guard that was made for a request without a name the name of its
// path. It returns nil where there is none, or where the name is known already.
func (l *Ledger) rename(c *Claim) *record {
	r := l.find(c.For, held)
	if r == nil || !r.is(nameless) || l.first(func(r *record) bool { return r.ID == c.ID }) != nil {
		return nil
	}
	r.ID, r.flags = c.ID, r.flags&^nameless
	return r
}

// may reports whether a request without a name may be part of a playback: what is
// not known of either matches anything.
func (r *record) may(c *Claim) bool {
	return !r.is(long) && alike(r.Stream, c.Stream) && alike(r.Device, c.Device) &&
		(!r.is(nameless) || r.Client == 0 || c.Client == 0 || r.Client == c.Client)
}

func alike(a, b string) bool { return a == "" || b == "" || a == b }

// serves reports whether a request without a name is part of a playback, as far as
// the request knows.
func (r *record) serves(c *Claim) bool {
	return r.may(c) && r.Stream == c.Stream && (r.Device == c.Device || c.Device == "")
}

// share keeps alive what the user has on the claim's stream and device, as far as
// its own media have never named themselves, and returns the oldest. What is closed
// serves where nothing else does, and is closed no more: somebody is watching.
func (l *Ledger) share(now time.Time, c *Claim, p Policy, v *Verdict) (first *record) {
	for i := range l.records {
		r := &l.records[i]
		if r.kind != held || !r.serves(c) {
			continue
		}
		if !r.is(named) && r.refresh(now, p, l.Node) {
			v.Answered = true
		}
		if first == nil || first.Closed && !r.Closed {
			first = r
		}
	}
	if first != nil && first.Closed {
		v.Answered = first.refresh(now, p, l.Node)
	}
	return first
}

// ended is the mark of a playback that a request without a name may be part of; an
// operator's word is about its own guard too. Of one that passes it is known: who had
// asked before the release has filled in the rest. That a slot was taken is the last to
// be said.
func (l *Ledger) ended(now time.Time, c *Claim) (mark *record) {
	for i := range l.records {
		r := &l.records[i]
		if r.stops() && !r.is(parted) && r.may(c) || r.kind == revoked && r.ID == c.ID ||
			r.kind == released && r.serves(c) && r.precedes(now, c) {
			if !r.is(taken) {
				return r
			}
			if mark == nil {
				mark = r
			}
		}
	}
	return mark
}

// precedes reports whether a request that comes without a guard belongs to the
// time before the release that left the mark.
func (mark *record) precedes(now time.Time, c *Claim) bool {
	switch {
	case c.Intent == Resume:
		return c.Alone == 0 || now.Sub(mark.CreatedAt) <= c.Alone
	case c.Intent == Look, c.Anew:
		return false
	}
	return now.Before(mark.ExpiresAt)
}

// returns is how often playbacks of a guard's stream have come back, with this one.
func (l *Ledger) returns(g *Guard) (n uint8) {
	for _, r := range l.records {
		if r.thrownOut() && r.Stream == g.Stream {
			times := min(r.returns, MaxReturns)
			if r.is(watched) {
				times++
			}
			n = max(n, times)
		}
	}
	return n
}

// fight keeps the marks that refuse a playback because it would throw out another
// once too often, and returns how long they stand.
func (l *Ledger) fight(now time.Time, g *Guard, p Policy) (standing time.Duration) {
	for i := range l.records {
		r := &l.records[i]
		if r.thrownOut() && r.is(watched) && r.Stream == g.Stream && r.returns >= MaxReturns {
			r.stay(now, p)
			standing = max(standing, r.RemovedAt.Sub(now))
		}
	}
	return standing
}

// doubt is what becomes of a start that a rule refuses. Guards in its way of the
// same client and stream, and of no other device, may be the same viewer's, and over:
// whether they are is known when the start has waited. Where all of them are too few
// none is doubted.
func (l *Ledger) doubt(now time.Time, room *room, g *Guard, c *Claim, v *Verdict) Outcome {
	if c.Patience == 0 || g.Client == 0 || g.Stream == "" {
		return Rejected
	}
	var perhaps []*record
	for i := range l.records {
		r := &l.records[i]
		if r.kind == held && r.ID != g.ID && !r.is(long) && r.same(g) && !room.goes(r.ID) && room.refusing.covers(&r.Guard, g) &&
			!(c.Waited && r.doubtedAt.IsZero()) {
			perhaps = append(perhaps, r)
		}
	}
	if len(perhaps) < room.missing {
		return Rejected
	}
	waits := make([]time.Duration, len(perhaps))
	for i, r := range perhaps {
		if r.doubtedAt.IsZero() {
			r.doubtedAt = now
			v.Doubted = append(v.Doubted, r.ID)
		}
		waits[i] = r.doubtedAt.Add(c.Patience).Sub(now)
	}
	slices.Sort(waits)
	v.FreeIn = waits[room.missing-1]
	return Doubted
}

// same reports whether two guards may be one viewer's.
func (r *record) same(g *Guard) bool {
	return r.Client == g.Client && r.Stream == g.Stream && alike(r.Device, g.Device)
}

// Refresh is Store.Refresh at a moment of the store's clock.
func (l *Ledger) Refresh(now time.Time, id ID, p Policy) Verdict {
	l.Forget(now)
	v := Verdict{Outcome: Absent, Held: l.held()}
	if r := l.find(id, held); r != nil {
		v.Answered = r.refresh(now, p, l.Node)
		v.Outcome, v.Guard = Refreshed, r.Guard
	} else if r := l.stopping(id); r != nil {
		v.Outcome = l.stop(now, r, p, &v)
		v.FreeIn = 0
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
	l.finish(now, []ID{id}, p, k, nil)
	return true
}

// Undo is Store.Undo at a moment of the store's clock.
func (l *Ledger) Undo(now time.Time, id ID, others []ID) bool {
	l.Forget(now)
	g := l.find(id, held)
	if g == nil || !g.is(unproven) {
		return false
	}
	made := g.CreatedAt
	if mark := l.find(id, returned); mark != nil {
		mark.kind = released
	}
	for i := range l.records {
		// Their slots may be somebody else's by now: they may start, not resume.
		if r := &l.records[i]; r.kind == replaced && r.CreatedAt.Equal(made) && slices.Contains(others, r.ID) {
			r.flags = r.flags&^watched | lifted
		}
	}
	l.drop(id, held)
	return true
}

// finish turns guards into marks of this kind, with these flags. A mark lives for the
// policy's ttl, or the guard's if that is longer: for so long a node that has not heard
// of the end may take the guard for lost.
func (l *Ledger) finish(now time.Time, ids []ID, p Policy, k kind, flags map[ID]flag) {
	place := make(map[ID]int, len(ids))
	for i, id := range ids {
		place[id] = i
	}
	var guards []record
	again := make(map[ID]bool)
	l.records = slices.DeleteFunc(l.records, func(r record) bool {
		if _, ends := place[r.ID]; !ends || r.kind == forgotten {
			return false
		}
		switch r.kind {
		case held:
			guards = append(guards, r)
		case returned:
			again[r.ID] = true
		}
		return true
	})
	slices.SortFunc(guards, func(a, b record) int { return place[a.ID] - place[b.ID] })
	releases := l.count(released)
	for _, r := range guards {
		grace := min(Settle, now.Sub(r.CreatedAt))
		if releases >= MaxGraces {
			grace = min(grace, Watched)
		}
		if again[r.ID] || k != released {
			grace = 0
		}
		if p.TTL > 0 {
			r.kind, r.ttl, r.Labels, r.doubtedAt, r.node = k, max(p.TTL, r.ttl), "", time.Time{}, 0
			r.CreatedAt, r.ExpiresAt, r.RemovedAt = now, now.Add(grace), now.Add(r.ttl)
			r.flags |= flags[r.ID]
			l.records = append(l.records, r)
		}
	}
	l.forgetMarks(now)
}

// forgetMarks forgets marks beyond MaxMarks: the oldest of the least weight. A user
// who starts and stops many playbacks does not wash a revocation away, nor what keeps
// a playback that is thrown out from throwing out its successor. That an end was
// forgotten is remembered.
func (l *Ledger) forgetMarks(now time.Time) {
	excess, until := l.Len()-l.held()-MaxMarks, now
	for least := 1; least <= 5 && excess > 0; least++ {
		l.records = slices.DeleteFunc(l.records, func(r record) bool {
			if r.weight() != least || excess <= 0 {
				return false
			}
			excess--
			if r.kind >= released && r.RemovedAt.After(until) {
				until = r.RemovedAt
			}
			return true
		})
	}
	if before := l.find(ID{}, forgotten); before != nil && !before.RemovedAt.Before(until) || until == now {
		return
	}
	l.drop(ID{}, forgotten)
	l.records = append(l.records, record{Guard: Guard{CreatedAt: now, RemovedAt: until}, ttl: until.Sub(now), kind: forgotten})
}

// weight orders marks by what is lost with them, from 1 to 5; 0 of what is no mark.
func (r *record) weight() int {
	switch {
	case r.kind == returned:
		return 1
	case r.kind == released:
		return 2
	case r.kind == replaced && !r.is(watched):
		return 3
	case r.kind == replaced:
		return 4
	case r.kind == revoked:
		return 5
	}
	return 0
}

// List is Store.List at a moment of the store's clock. It changes nothing.
func (l *Ledger) List(now time.Time) []Guard {
	as := Ledger{records: slices.Clone(l.records)}
	as.Forget(now)
	return shown(now, as.guards())
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
		}
		if r.CreatedAt.After(now) {
			r.CreatedAt = now
		}
		if r.doubtedAt.After(now) {
			r.doubtedAt = now
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

func (l *Ledger) first(where func(*record) bool) *record {
	for i := range l.records {
		if where(&l.records[i]) {
			return &l.records[i]
		}
	}
	return nil
}

func (l *Ledger) find(id ID, k kind) *record {
	return l.first(func(r *record) bool { return r.ID == id && r.kind == k })
}

// stopping is the mark that refuses a playback, nil if there is none.
func (l *Ledger) stopping(id ID) *record {
	return l.first(func(r *record) bool { return r.ID == id && r.stops() })
}

func (l *Ledger) drop(id ID, k kind) {
	l.records = slices.DeleteFunc(l.records, func(r record) bool { return r.ID == id && r.kind == k })
}

func (l *Ledger) held() int { return l.count(held) }

func (l *Ledger) count(k kind) (n int) {
	for i := range l.records {
		if l.records[i].kind == k {
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
