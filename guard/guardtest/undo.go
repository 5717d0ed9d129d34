package guardtest

import (
	"fmt"
	"time"

	"github.com/streamguard/streamguard/guard"
)

func (s *suite) undo(want bool, n int, replaced ...int) {
	s.Helper()
	done, err := s.Store.Undo(s.Context(), "user", id(n), ids(replaced))
	if err != nil || done != want {
		s.Fatalf("undo: %v, %v, want %v", done, err, want)
	}
}

// A start that delivers nothing is as if it had never been.
func (s *suite) undoLeavesNothing() {
	s.undo(false, 1)
	for _, c := range []guard.Claim{named(claim(1)), nameless(claim(1)), named(anew(claim(1)))} {
		s.acquire(guard.Admitted, c, policy)
		s.Advance(3 * time.Second)
		s.undo(true, 1)
		s.undo(false, 1)
		if n := s.Size("user"); n != 0 {
			s.Errorf("%d records", n)
		}
		s.refresh(guard.Absent, 1)
		s.release(false, 1)
	}
	// Neither has it stragglers.
	s.acquire(guard.Admitted, on(2, "other", "", ""), one)
	s.acquire(guard.Rejected, named(claim(1)), one)
	s.acquire(guard.Rejected, nameless(claim(1)), one)
}

func (s *suite) undoLetsTheReplacedGoOn() {
	s.acquire(guard.Admitted, named(claim(1)), replacing)
	s.Advance(time.Minute)
	s.replaces(guard.Admitted, named(on(2, "other", "", "")), replacing, 1)
	s.Advance(2 * time.Second)
	s.acquire(guard.Replaced, named(claim(1)), replacing)
	s.undo(true, 2, 1)
	s.holds()
	s.acquire(guard.Admitted, named(claim(1)), replacing)
	s.holds(1)
	// It was no fight: nobody has returned.
	for range 10 {
		s.replaces(guard.Admitted, named(on(2, "other", "", "")), replacing, 1)
		s.Advance(2 * time.Second)
		s.acquire(guard.Replaced, named(claim(1)), replacing)
		s.undo(true, 2, 1)
		s.acquire(guard.Admitted, named(claim(1)), replacing)
	}
	// Somebody else may have the slot by then, and is not resumed away.
	s.replaces(guard.Admitted, named(on(2, "other", "", "")), replacing, 1)
	s.undo(true, 2, 1)
	s.acquire(guard.Admitted, on(3, "third", "", ""), one)
	s.acquire(guard.Rejected, with(claim(1), guard.Resume), one)
	s.acquire(guard.Rejected, named(claim(1)), one)
	s.release(true, 3)
	s.acquire(guard.Admitted, named(claim(1)), one)
	// So it is with a doubt.
	s.release(true, 1)
	s.Advance(policy.TTL)
	s.acquire(guard.Admitted, named(by(7, claim(1))), one)
	s.doubts(patient(named(by(7, claim(2)))), one, patience, 1)
	s.Advance(patience)
	s.replaces(guard.Admitted, waited(named(by(7, claim(2)))), one, 1)
	s.undo(true, 2, 1)
	s.acquire(guard.Admitted, named(by(7, claim(1))), one)
}

// Only what it replaced itself goes on.
func (s *suite) undoLiftsNoOtherEnd() {
	two := replacing
	two.Limit = 2
	for n := range 2 {
		s.acquire(guard.Admitted, named(claim(n)), two)
		s.Advance(time.Second)
	}
	s.replaces(guard.Admitted, named(claim(2)), two, 0)
	s.revoke(true, 1)
	s.Advance(time.Second)
	s.acquire(guard.Admitted, named(claim(3)), two)
	s.undo(true, 3, 0, 1, 2)
	s.acquire(guard.Replaced, named(claim(0)), two)
	s.acquire(guard.Revoked, named(claim(1)), two)
	s.holds(2)
}

// What somebody else relies on is not taken back.
func (s *suite) undoIsOfTheFirstRequestOnly() {
	first := named(claim(1))
	for _, more := range []func(){
		func() { s.acquire(guard.Refreshed, first, policy) },
		func() { s.acquire(guard.Refreshed, with(claim(1), guard.Look), policy) },
		func() { s.refresh(guard.Refreshed, 1) },
	} {
		s.acquire(guard.Admitted, first, policy)
		more()
		s.undo(false, 1)
		s.holds(1)
		s.release(true, 1)
	}
	// Requests without a name rely on a guard that they have made, whoever's they are.
	s.acquire(guard.Admitted, nameless(claim(1)), policy)
	s.acquire(guard.Refreshed, nameless(claim(2)), policy)
	s.undo(false, 1)
	s.release(true, 1)
	// A reservation is none of a request's, nor is what comes back.
	for _, c := range []guard.Claim{claim(1), anew(claim(1)), with(claim(1), guard.Resume), with(named(claim(1)), guard.Resume)} {
		s.Advance(policy.TTL)
		s.acquire(guard.Admitted, c, policy)
		s.undo(false, 1)
		s.release(true, 1)
	}
	// Nobody undoes another user's.
	s.Advance(policy.TTL)
	s.acquire(guard.Admitted, first, policy)
	if done, err := s.Store.Undo(s.Context(), "mallory", id(1), nil); err != nil || done {
		s.Errorf("foreign undo: %v, %v", done, err)
	}
	s.holds(1)
}

// Marks of before are there again: that the playback was released, so that no node
// resumes it, and how often it has come back.
func (s *suite) undoForgetsNoMark() {
	s.acquire(guard.Admitted, named(claim(1)), one)
	s.Advance(time.Minute)
	s.release(true, 1)
	s.acquire(guard.Admitted, named(anew(claim(1))), one)
	s.undo(true, 1)
	s.acquire(guard.Released, named(claim(1)), one)
	s.Advance(guard.Settle)
	s.acquire(guard.Released, with(claim(1), guard.Resume), one)
	s.acquire(guard.Admitted, named(claim(1)), one)
	s.release(true, 1)
	s.Advance(policy.TTL)

	// Two that throw each other out, each of whose starts fails the first time.
	start := func(n int) guard.Claim { return anew(named(on(n, fmt.Sprint(n), "", ""))) }
	plays, waits := 1, 2
	s.acquire(guard.Admitted, start(plays), replacing)
	for range 1 + 2*guard.MaxReturns {
		s.replaces(guard.Admitted, start(waits), replacing, plays)
		s.undo(true, waits, plays)
		s.acquire(guard.Admitted, start(plays), replacing)
		s.Advance(2 * time.Second)
		s.replaces(guard.Admitted, start(waits), replacing, plays)
		s.Advance(2 * time.Second)
		plays, waits = waits, plays
		s.refresh(guard.Replaced, waits)
	}
	if v := s.acquire(guard.Rejected, start(waits), replacing); !v.Lately {
		s.Errorf("verdict %+v", v)
	}
}
