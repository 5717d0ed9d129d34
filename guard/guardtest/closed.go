package guardtest

import (
	"context"
	"slices"
	"time"

	"github.com/streamguard/streamguard/guard"
)

// close expects whether a guard is closed.
func (s *suite) close(want bool, n int) {
	s.Helper()
	closed, err := s.Store.CloseGuard(s.Context(), "user", id(n))
	if err != nil || closed != want {
		s.Fatalf("close: %v, %v, want %v", closed, err, want)
	}
}

// takes expects a start to end these guards, all of them closed or lapsed.
func (s *suite) takes(want guard.Outcome, c guard.Claim, p guard.Policy, taken ...int) guard.Verdict {
	s.Helper()
	v := s.acquire(want, c, p)
	if want := ids(taken); !slices.Equal(v.Replaced, want) || v.Taken != len(taken) {
		s.Fatalf("replaced %v, of which %d were over; want %v", v.Replaced, v.Taken, want)
	}
	return v
}

// watches starts films one after the other, each asked for again a second later.
func (s *suite) watches(p guard.Policy, ns ...int) {
	s.Helper()
	for _, n := range ns {
		s.acquire(guard.Admitted, named(claim(n)), p)
		s.Advance(time.Second)
		s.acquire(guard.Refreshed, named(claim(n)), p)
	}
}

// are expects the states of the user's guards, oldest first. The store's clock stands
// still, so that it says what a guard that is refreshed now says.
func (s *suite) are(now time.Time, want ...guard.State) {
	s.Helper()
	guards, err := s.Store.List(context.Background(), "user")
	if err != nil {
		s.Fatalf("list: %v", err)
	}
	var got []guard.State
	for i := range guards {
		got = append(got, guards[i].State(now))
	}
	if !slices.Equal(got, want) {
		s.Fatalf("the guards are %v, want %v", got, want)
	}
}

func (s *suite) closedGuardKeepsItsSlotUntilTTL() {
	told := s.acquire(guard.Admitted, claim(1), one).Guard
	s.Advance(10 * time.Second)
	s.close(true, 1)
	now := told.CreatedAt.Add(10 * time.Second)
	if g := s.holds(1)[0]; !g.Closed || !g.ExpiresAt.Equal(now) || !g.RemovedAt.Equal(told.RemovedAt) || !g.CreatedAt.Equal(told.CreatedAt) {
		s.Errorf("told %+v, closed %+v at %v", told, g, now)
	}
	s.are(now, guard.Closed)
	// Whose start may take nothing is refused, and told when it is gone.
	off := one
	off.Reclaim = guard.ReclaimOff
	if v := s.acquire(guard.Rejected, claim(2), off); v.FreeIn != policy.TTL-10*time.Second || !v.InTheWay[0].Closed {
		s.Errorf("verdict %+v", v)
	}
	s.Advance(policy.TTL - 10*time.Second - time.Millisecond)
	s.holds(1)
	s.Advance(time.Millisecond)
	s.holds()
	s.close(false, 1)
	s.acquire(guard.Admitted, claim(2), off)
}

func (s *suite) closedFirstGoesFirst() {
	s.watches(policy, 1, 2, 3)
	s.close(true, 2)
	s.Advance(time.Second)
	s.close(true, 1)
	s.takes(guard.Admitted, claim(4), policy, 2)
	s.takes(guard.Admitted, claim(5), policy, 1)
	v := s.acquire(guard.Rejected, claim(6), policy)
	if v.Held != 3 || v.FreeIn <= 0 {
		s.Errorf("verdict %+v", v)
	}
	s.holds(3, 4, 5)
}

func (s *suite) whereThereIsRoomNothingIsTaken() {
	s.watches(policy, 1, 2)
	s.close(true, 1)
	s.Advance(time.Second)
	s.takes(guard.Admitted, claim(3), policy)
	s.holds(1, 2, 3)
	// Nor is it where what is closed is too little.
	two := policy
	two.Limit = 2
	v := s.refuses(claim(4), two, "", 1, 2, 3)
	if v.FreeIn != policy.TTL-time.Second {
		s.Errorf("free in %v, want when the next one goes", v.FreeIn)
	}
	s.holds(1, 2, 3)
}

func (s *suite) whoIsBackBeforeAnybodyHasItBack() {
	for _, back := range []guard.Claim{named(claim(1)), with(claim(1), guard.Resume), with(claim(1), guard.Look), named(anew(claim(1)))} {
		s.watches(one, 1)
		s.close(true, 1)
		s.close(false, 1)
		v := s.acquire(guard.Refreshed, back, one)
		if v.Guard.Closed || v.Guard.ExpiresAt.Sub(v.Guard.RemovedAt) != policy.Interval-policy.TTL || v.FreeIn != policy.TTL {
			s.Errorf("verdict %+v", v)
		}
		s.acquire(guard.Rejected, claim(2), one)
		// Its client closes idle connections: that says no more.
		s.close(false, 1)
		s.acquire(guard.Rejected, claim(2), one)
		s.Advance(policy.Interval)
		s.close(false, 1)
		s.release(true, 1)
		s.Advance(policy.TTL)
	}
	// The next guard of the playback may be closed.
	s.watches(one, 1)
	s.close(true, 1)
	if v := s.refresh(guard.Refreshed, 1); v.Guard.Closed {
		s.Errorf("verdict %+v", v)
	}
	s.acquire(guard.Rejected, claim(2), one)
}

func (s *suite) whoIsBackLaterMayWhereThereIsRoom() {
	s.watches(one, 1)
	s.close(true, 1)
	s.takes(guard.Admitted, named(claim(2)), one, 1)
	for _, back := range []guard.Claim{claim(1), named(claim(1)), with(claim(1), guard.Look), with(claim(1), guard.Resume), nameless(on(1, "movie", "tv", ""))} {
		s.release(true, 2)
		s.acquire(guard.Admitted, on(2, "other", "", ""), one)
		s.refresh(guard.Replaced, 1)
		if v := s.acquire(guard.Replaced, back, one); v.FreeIn <= 0 || v.Held != 1 {
			s.Errorf("verdict %+v", v)
		}
	}
	// A start anew is as any other.
	s.acquire(guard.Rejected, with(anew(claim(3)), guard.Look), one)
	s.release(true, 2)
	s.acquire(guard.Vacant, with(claim(1), guard.Look), one)
	s.acquire(guard.Admitted, with(claim(1), guard.Resume), one)
	s.acquire(guard.Rejected, claim(2), one)
	s.close(true, 1)
	s.takes(guard.Admitted, claim(2), one, 1)
	s.Advance(time.Second)
	s.acquire(guard.Rejected, anew(named(claim(1))), one)
	s.acquire(guard.Rejected, named(claim(1)), one)
	// What is closed by then is room, too.
	s.close(true, 2)
	s.takes(guard.Admitted, named(claim(1)), one, 2)
	s.acquire(guard.Refreshed, named(claim(1)), one)
	s.acquire(guard.Replaced, claim(2), one)
	s.release(true, 1)
	s.acquire(guard.Admitted, claim(2), one)
}

// A taking is no fight: nobody has thrown anybody out, however often it happens.
func (s *suite) takingIsNoFight() {
	p := one
	p.Rules = []guard.Rule{{Per: "stream", Limit: 1, AtLimit: guard.ReplaceOldest}}
	s.watches(one, 1)
	for range 3 * guard.MaxReturns {
		s.close(true, 1)
		s.takes(guard.Admitted, by(8, on(2, "other", "", "")), p, 1)
		s.Advance(2 * time.Second)
		s.acquire(guard.Replaced, named(claim(1)), p)
		s.close(true, 2)
		s.takes(guard.Admitted, named(claim(1)), p, 2)
		s.acquire(guard.Refreshed, named(claim(1)), p)
	}
	if v := s.acquire(guard.Admitted, by(9, claim(3)), p); v.Lately || !slices.Equal(v.Replaced, ids([]int{1})) || v.Taken != 0 {
		s.Errorf("verdict %+v", v)
	}
}

// Where the limit replaces, what is taken has the mark of what is replaced; but nobody
// was watching, whoever took it.
func (s *suite) takenWhereTheLimitReplaces() {
	s.watches(replacing, 1)
	s.close(true, 1)
	s.takes(guard.Admitted, by(8, named(claim(2))), replacing, 1)
	s.acquire(guard.Replaced, named(claim(1)), replacing)
	s.release(true, 2)
	s.acquire(guard.Replaced, named(claim(1)), replacing)
	again := anew(named(claim(1)))
	again.Reloads = true
	s.acquire(guard.Admitted, again, replacing)
	// It is taken before a guard that is older is replaced.
	two := replacing
	two.Limit = 2
	s.watches(two, 3)
	s.close(true, 3)
	s.takes(guard.Admitted, claim(4), two, 3)
	// The rule replaces on a device only: elsewhere it takes what it would not replace.
	s.release(true, 1)
	s.release(true, 4)
	device := one
	device.AtLimit = guard.ReplaceDevice
	s.watches(device, 5)
	s.close(true, 5)
	s.takes(guard.Admitted, on(6, "movie", "phone", ""), device, 5)
	s.acquire(guard.Replaced, named(claim(5)), one)
	s.release(true, 6)
	s.acquire(guard.Admitted, named(claim(5)), device)
}

// Whoever carries on where his slot was taken throws nobody out.
func (s *suite) whoCarriesOnThrowsNobodyOut() {
	s.watches(one, 1)
	s.close(true, 1)
	s.takes(guard.Admitted, named(on(2, "other", "", "")), one, 1)
	s.acquire(guard.Replaced, named(claim(1)), replacing)
	s.acquire(guard.Replaced, with(claim(1), guard.Look), replacing)
	s.replaces(guard.Admitted, anew(named(claim(1))), replacing, 2)
}

// First goes what is closed, then what has lapsed, then what was doubted in vain, then
// what is replaced.
func (s *suite) closedLapsedDoubtedReplaced() {
	five := policy
	five.Limit, five.Reclaim = 5, guard.ReclaimLapsed
	for n := range 5 {
		s.acquire(guard.Admitted, by(guard.Client(7+n%2), claim(n)), five)
		s.acquire(guard.Refreshed, claim(n), five)
		s.Advance(time.Second)
	}
	s.Advance(policy.Interval - 15*time.Second)
	for _, n := range []int{0, 1, 2} {
		s.refresh(guard.Refreshed, n)
	}
	s.Advance(15 * time.Second) // 3 has lapsed, and 4 a second later
	s.close(true, 1)
	now := s.refresh(guard.Refreshed, 2).Guard.ExpiresAt.Add(-policy.Interval)
	s.are(now, guard.Active, guard.Closed, guard.Active, guard.Lapsed, guard.Lapsed)

	// With what is over there is room for three: the next doubts those of its client.
	three := five
	three.Limit = 2
	start := by(7, claim(9))
	s.doubts(patient(start), three, patience, 0, 2)
	s.Advance(patience)
	s.refresh(guard.Refreshed, 2)
	three.AtLimit = guard.ReplaceOldest
	three.Limit = 1
	v := s.acquire(guard.Admitted, waited(start), three)
	if want := ids([]int{1, 3, 4, 0, 2}); !slices.Equal(v.Replaced, want) || v.Taken != 3 {
		s.Errorf("replaced %v, of which %d were over; want %v", v.Replaced, v.Taken, want)
	}
	s.holds(9)
}

func (s *suite) aLookTakesNothing() {
	s.watches(one, 1)
	s.close(true, 1)
	for _, look := range []guard.Claim{with(claim(2), guard.Look), with(anew(claim(2)), guard.Look), with(nameless(on(2, "other", "tv", "")), guard.Look)} {
		s.takes(guard.Vacant, look, one)
	}
	s.close(false, 1) // which it is still
	s.holds(1)
	s.takes(guard.Admitted, claim(2), one, 1)
}

// The guard of a look that moves stays where it is if it would have to take another's slot.
func (s *suite) aLookThatMovesTakesNothing() {
	p := policy
	p.Rules = []guard.Rule{{Per: "stream", Limit: 1}}
	s.watches(p, 1)
	s.acquire(guard.Admitted, on(2, "other", "tv", ""), p)
	s.close(true, 1)
	if v := s.takes(guard.Refreshed, with(on(2, "movie", "tv", ""), guard.Look), p); v.Guard.Stream != "other" {
		s.Errorf("verdict %+v", v)
	}
	if v := s.takes(guard.Refreshed, on(2, "movie", "tv", ""), p, 1); v.Guard.Stream != "movie" {
		s.Errorf("verdict %+v", v)
	}
}

// Who zaps is gone before anything has refreshed his guard. What made it may yet fail:
// then it is taken back, closed or not.
func (s *suite) aGuardIsClosedAtOnce() {
	s.close(false, 1)
	for _, c := range []guard.Claim{named(claim(1)), nameless(claim(1))} {
		s.acquire(guard.Admitted, c, policy)
		s.close(true, 1)
		s.undo(true, 1)
		s.acquire(guard.Admitted, c, policy)
		s.close(true, 1)
		s.refresh(guard.Refreshed, 1)
		s.close(false, 1)
		s.undo(false, 1)
		s.release(true, 1)
		s.Advance(policy.TTL)
	}
	s.close(false, 1)
}

// Marks of what was ended are not closed, nor does a closing end a playback.
func (s *suite) closingIsNoEnd() {
	s.watches(policy, 1, 2)
	s.Advance(time.Minute)
	s.close(true, 1)
	s.release(true, 1)
	s.acquire(guard.Released, named(claim(1)), policy)
	s.refresh(guard.Refreshed, 2)
	s.close(true, 2)
	s.revoke(true, 2)
	s.acquire(guard.Revoked, named(claim(2)), policy)
	s.close(false, 2)
}

// A closing ends a doubt: what is closed need not be waited for.
func (s *suite) closingEndsADoubt() {
	s.acquire(guard.Admitted, by(7, claim(1)), one)
	s.doubts(patient(by(7, claim(2))), one, patience, 1)
	s.Advance(time.Second)
	s.close(true, 1)
	s.takes(guard.Admitted, waited(by(7, claim(2))), one, 1)
	// Where that takes nothing the wait begins again.
	off := one
	off.Reclaim = guard.ReclaimOff
	s.doubts(patient(by(7, claim(3))), one, patience, 2)
	s.Advance(time.Second)
	s.close(true, 2)
	s.doubts(patient(by(7, claim(3))), off, patience, 2)
}

func (s *suite) observingTakesNothing() {
	p := one
	p.Observe = true
	s.watches(p, 1)
	s.close(true, 1)
	s.takes(guard.Admitted, claim(2), p)
	s.holds(1, 2)
	// Nor does what is closed make room in a full store.
	for n := range guard.MaxObserved - 2 {
		s.acquire(guard.Admitted, claim(100+n), p)
	}
	s.passesUncounted(p, guard.MaxObserved)
	// Whom others take the slot of is refused nothing.
	p.Observe, p.Limit = false, guard.MaxObserved
	s.takes(guard.Admitted, claim(3), p, 1)
	s.acquire(guard.Replaced, claim(1), p)
	p.Observe = true
	s.acquire(guard.Uncounted, claim(1), p)
}

// Requests without a name reopen the guard that serves them, where no other does: they
// say that somebody is watching. But they do not keep it, if it names itself.
func (s *suite) namelessAndClosed() {
	for _, back := range []guard.Claim{nameless(claim(5)), nameless(on(5, "", "", "")), nameless(claim(1)), with(nameless(claim(5)), guard.Look)} {
		s.watches(one, 1)
		s.close(true, 1)
		s.Advance(time.Second)
		if v := s.acquire(guard.Refreshed, back, one); v.Guard.Closed || v.FreeIn != policy.TTL {
			s.Errorf("verdict %+v", v)
		}
		s.acquire(guard.Rejected, named(on(2, "other", "", "")), one)
		s.close(false, 1)
		s.Advance(policy.TTL / 2)
		if v := s.acquire(guard.Refreshed, back, one); v.FreeIn != policy.TTL/2 {
			s.Errorf("verdict %+v", v)
		}
		s.release(true, 1)
		s.Advance(policy.TTL)
	}
	// What is closed beside one that serves them stays closed.
	s.watches(policy, 1, 2)
	s.close(true, 1)
	s.Advance(time.Second)
	if v := s.acquire(guard.Refreshed, nameless(claim(5)), policy); v.Guard.ID != id(2) {
		s.Errorf("verdict %+v", v)
	}
	s.takes(guard.Admitted, named(on(3, "other", "", "")), guard.Policy{Limit: 2, Interval: policy.Interval, TTL: policy.TTL}, 1)
	s.release(true, 2)
	s.release(true, 3)
	s.Advance(2 * policy.TTL)
	// After a taking they are told what its playback is.
	s.watches(one, 1)
	s.close(true, 1)
	s.takes(guard.Admitted, named(on(2, "other", "", "")), one, 1)
	s.acquire(guard.Replaced, nameless(claim(5)), one)
	s.release(true, 2)
	s.acquire(guard.Admitted, nameless(claim(5)), one)
	s.acquire(guard.Refreshed, nameless(claim(5)), one)
	// A guard of theirs they reopen.
	s.close(true, 5)
	if v := s.acquire(guard.Refreshed, nameless(claim(5)), one); v.Guard.Closed {
		s.Errorf("verdict %+v", v)
	}
	s.close(false, 5)
	// An operator's word on another playback of the stream counts for more than a taking.
	two := one
	two.Limit = 2
	s.watches(two, 6)
	s.close(true, 6)
	s.takes(guard.Admitted, named(on(2, "other", "", "")), two, 6)
	s.revoke(true, 5)
	s.acquire(guard.Revoked, nameless(claim(5)), two)
}

// Who takes a slot and delivers nothing gives it back to nobody, but its playback may
// come back.
func (s *suite) undoOfATaking() {
	s.watches(one, 1)
	s.close(true, 1)
	s.takes(guard.Admitted, named(on(2, "other", "", "")), one, 1)
	s.undo(true, 2, 1)
	s.holds()
	s.acquire(guard.Admitted, named(claim(1)), one)
}

// Seven films in turn, each closed and gone back to, are one at a time.
func (s *suite) sevenFilmsInTurn() {
	plays := 0
	s.watches(one, plays)
	for n := range 50 {
		next := (n + 1) * 3 % 7
		back := []guard.Claim{named(claim(next)), named(anew(claim(next))), with(claim(next), guard.Look)}
		if n >= 7 { // it has been taken, and is not lost
			back = append(back, with(claim(next), guard.Resume))
		}
		for _, c := range back {
			if v, err := s.Store.Acquire(s.Context(), c, one); err != nil || v.Held != 1 || v.Outcome.Pass() {
				s.Fatalf("%v, %v, %d are held", v.Outcome, err, v.Held)
			}
			s.Advance(time.Second)
		}
		s.close(true, plays)
		s.takes(guard.Admitted, back[n%2], one, plays)
		s.Advance(time.Second)
		s.refresh(guard.Refreshed, next)
		s.refresh(guard.Replaced, plays)
		s.holds(next)
		plays = next
	}
}

// Where the clock goes back a closed guard is closed now, and gone when it was to be.
func (s *suite) closedWhileTheClockGoesBack() {
	told := s.acquire(guard.Admitted, claim(1), one).Guard
	s.Advance(30 * time.Second)
	s.close(true, 1)
	s.Advance(-time.Hour)
	off := one
	off.Reclaim = guard.ReclaimOff
	now := told.CreatedAt.Add(30*time.Second - time.Hour)
	if v := s.acquire(guard.Rejected, claim(2), off); v.FreeIn != policy.TTL-30*time.Second || !v.InTheWay[0].ExpiresAt.Equal(now) {
		s.Errorf("verdict %+v, at %v", v, now)
	}
	s.are(now, guard.Closed)
	s.takes(guard.Admitted, claim(2), one, 1)
	s.Advance(-time.Hour)
	s.acquire(guard.Replaced, claim(1), one)
	s.release(true, 2)
	s.acquire(guard.Admitted, claim(1), one)
}

// What two nodes serve is not closed.
func (s *suite) whatTwoNodesServeIsNotClosed() {
	for _, two := range []func(){
		func() { s.refresh(guard.Refreshed, 1) },
		func() { s.acquire(guard.Refreshed, named(claim(1)), one) },
		func() { s.acquire(guard.Refreshed, with(on(1, "moved", "tv", ""), guard.Look), one) },
		func() { s.acquire(guard.Refreshed, with(claim(1), guard.Resume), one) },
	} {
		s.As(1)
		s.acquire(guard.Admitted, claim(1), one)
		s.As(2)
		s.close(false, 1)
		s.are(time.Time{}, guard.Active)
		two()
		s.close(false, 1)
		s.As(1)
		s.close(false, 1)
		s.refresh(guard.Refreshed, 1)
		s.close(false, 1)
		s.acquire(guard.Rejected, claim(2), one)
		s.release(true, 1)
		s.Advance(policy.TTL)
	}
	// One that another node has only ended and made again may be.
	s.As(1)
	s.acquire(guard.Admitted, claim(1), one)
	s.As(2)
	s.release(true, 1)
	s.acquire(guard.Admitted, claim(1), one)
	s.close(true, 1)
	s.As(1)
	s.takes(guard.Admitted, claim(2), one, 1)
	s.close(true, 2)
	s.As(2)
	s.refresh(guard.Refreshed, 2)
	s.close(false, 2)
}
