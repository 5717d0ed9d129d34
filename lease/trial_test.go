package lease

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/streamguard/streamguard/guard"
)

// begin is a request for media whose answer is not known yet.
func (n node) begin(want guard.Outcome, c guard.Claim, p guard.Policy) *Trial {
	n.t.Helper()
	v, trial, err := n.Check(context.Background(), c, p)
	if err != nil || v.Outcome != want {
		n.t.Fatalf("check: %v, %v, want %v", v.Outcome, err, want)
	}
	return trial
}

// holds expects the user of the tests to hold the guards of these playbacks.
func (s *counter) holds(t *testing.T, want ...int) {
	t.Helper()
	guards, _ := s.List(t.Context(), "user")
	ids := make(map[guard.ID]bool)
	for _, g := range guards {
		ids[g.ID] = true
	}
	for _, n := range want {
		if !ids[claim(n).ID] {
			t.Errorf("%d is not among %+v", n, guards)
		}
	}
	if len(guards) != len(want) {
		t.Errorf("the user holds %+v, want %v", guards, want)
	}
}

// A start of which nothing is delivered leaves nothing: no guard, no mark, no memory.
func TestAStartThatDeliversNothingTakesNothing(t *testing.T) {
	for name, change := range map[string]func(*guard.Claim){
		"named":    func(*guard.Claim) {},
		"nameless": func(c *guard.Claim) { *c = nameless(1) },
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(t *testing.T, s *counter, a, b node) {
				c := claim(1)
				change(&c)
				for range 20 { // each of them would have to wait for the last one's slot
					a.begin(guard.Admitted, c, one).End(false)
					time.Sleep(time.Second)
				}
				if n := s.Size("user"); n != 0 {
					t.Errorf("%d records are left", n)
				}
				b.check(guard.Admitted, claim(2), one)
				a.check(guard.Rejected, claim(3), one)
				if n := a.trials.Size() + b.trials.Size(); n != 0 {
					t.Errorf("%d trials are left", n)
				}
			})
		})
	}
}

// One request of a playback that is delivered keeps its guard, whenever it is.
func TestTheFirstSuccessKeepsTheGuard(t *testing.T) {
	for name, ends := range map[string][]bool{
		"first": {true, false, false}, "last": {false, false, true}, "between": {false, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(t *testing.T, s *counter, a, _ node) {
				trials := []*Trial{a.begin(guard.Admitted, claim(1), one)}
				for range ends[1:] {
					trials = append(trials, a.begin(guard.Known, claim(1), one))
				}
				for i, delivered := range ends {
					trials[i].End(delivered)
				}
				s.holds(t, 1)
				if a.begin(guard.Known, claim(1), one) != nil {
					t.Error("the trial is not over")
				}
				if n := s.undos.Load(); n != 0 {
					t.Errorf("%d calls to undo it", n)
				}
			})
		})
	}
}

// Requests that share the call which makes the guard share its fate: whoever of
// them fails first leaves it to the others.
func TestRequestsThatStartTogetherShareOneTrial(t *testing.T) {
	for _, delivered := range []bool{false, true} {
		run(t, func(t *testing.T, s *counter, a, _ node) {
			s.delay.Store(int64(100 * time.Millisecond))
			var all sync.WaitGroup
			for n := range 20 {
				all.Go(func() {
					v, trial, err := a.Check(t.Context(), claim(1), one)
					if err != nil || !v.Outcome.Pass() {
						t.Error(v.Outcome, err)
					}
					if n < 10 {
						time.Sleep(time.Duration(n) * time.Second)
					}
					trial.End(delivered && n == 19)
				})
			}
			all.Wait()
			if delivered {
				s.holds(t, 1)
			} else if n := s.Size("user"); n != 0 {
				t.Errorf("%d records are left", n)
			}
			if n := a.trials.Size(); n != 0 {
				t.Errorf("%d trials are left", n)
			}
		})
	}
}

// Who comes while a guard is undone, or has shared the call that made it and finds
// it gone, takes the slot anew.
func TestWhoComesWhileAGuardIsUndoneTakesTheSlot(t *testing.T) {
	run(t, func(t *testing.T, s *counter, a, _ node) {
		first := a.begin(guard.Admitted, claim(1), one)
		s.delay.Store(int64(time.Second))
		var all sync.WaitGroup
		all.Go(func() { first.End(false) })
		synctest.Wait()
		for range 10 {
			all.Go(func() {
				v, trial, err := a.Check(t.Context(), claim(1), one)
				if err != nil || v.Outcome != guard.Admitted && v.Outcome != guard.Refreshed {
					t.Error(v.Outcome, err)
				}
				trial.End(true)
			})
		}
		all.Wait()
		s.holds(t, 1)
	})
}

// A client that has gone while the store answered may have been served.
func TestAClientThatHangsUpIsNoFailure(t *testing.T) {
	run(t, func(t *testing.T, s *counter, a, _ node) {
		s.late.Store(int64(100 * time.Millisecond))
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, trial, err := a.Check(ctx, claim(1), one); !errors.Is(err, context.DeadlineExceeded) || trial != nil {
			t.Error(trial, err)
		}
		time.Sleep(time.Second)
		s.holds(t, 1)
		if n := a.trials.Size(); n != 0 {
			t.Errorf("%d trials are left", n)
		}
		a.check(guard.Known, claim(1), one)
	})
}

// What was asked under the guard on another node, or by its page, keeps it.
func TestAGuardIsNotUndoneUnderAnother(t *testing.T) {
	for name, ask := range map[string]func(a, b node){
		"another node":     func(_, b node) { b.check(guard.Refreshed, claim(1), one) },
		"a manifest there": func(_, b node) { b.check(guard.Refreshed, lookAt(claim(1)), one) },
		"PATCH":            func(a, _ node) { a.refresh(guard.Refreshed, claim(1)) },
		"CMCD": func(a, _ node) {
			if v, err := a.Keep(a.t.Context(), claim(1), one); err != nil || v.Outcome != guard.Known {
				a.t.Error(v.Outcome, err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(t *testing.T, s *counter, a, b node) {
				trial := a.begin(guard.Admitted, claim(1), one)
				ask(a, b)
				trial.End(false)
				s.holds(t, 1)
				a.check(guard.Known, claim(1), one)
			})
		})
	}
}

// What a start in vain has replaced goes on, wherever it plays.
func TestWhatWasReplacedInVainGoesOn(t *testing.T) {
	replaces := one
	replaces.AtLimit = guard.ReplaceOldest
	run(t, func(t *testing.T, s *counter, a, b node) {
		a.check(guard.Admitted, claim(1), replaces)
		for _, n := range []node{a, b} {
			time.Sleep(10 * time.Millisecond)
			trial := n.begin(guard.Admitted, claim(2), replaces)
			s.holds(t, 2)
			time.Sleep(3 * time.Second) // a dial, say
			trial.End(false)
			time.Sleep(10 * time.Millisecond)
			a.check(guard.Admitted, claim(1), replaces)
			s.holds(t, 1)
		}
		time.Sleep(10 * time.Millisecond)
		trial := a.begin(guard.Admitted, claim(2), replaces)
		a.check(guard.Replaced, claim(1), replaces)
		trial.End(false)
		a.check(guard.Admitted, claim(1), replaces)
	})
}

// A guard of which it is not known whether it was undone is not restored: its slot
// may be another's.
func TestALostAnswerToAnUndoneStartRestoresNothing(t *testing.T) {
	run(t, func(t *testing.T, s *counter, a, b node) {
		trial := a.begin(guard.Admitted, claim(1), one)
		s.away.Store(true)
		trial.End(false)
		s.away.Store(false)
		s.Store.Undo(t.Context(), "user", claim(1).ID, nil) // it has arrived
		b.check(guard.Admitted, claim(2), one)
		a.check(guard.Rejected, claim(1), one)
		s.holds(t, 2)
	})
}

// News of an earlier ending that come before the answer do not make a start in
// vain keep its slot.
func TestNewsBeforeTheAnswerDoNotKeepAStartInVain(t *testing.T) {
	run(t, func(t *testing.T, s *counter, a, _ node) {
		s.late.Store(int64(time.Second))
		var asked sync.WaitGroup
		asked.Go(func() { a.begin(guard.Admitted, claim(1), one).End(false) })
		time.Sleep(500 * time.Millisecond)
		a.forget(claim(1).ID)
		s.late.Store(0)
		asked.Wait()
		s.holds(t)
	})
}

// A long dial outlives the first refresh, which keeps the guard.
func TestATrialMayOutliveARefresh(t *testing.T) {
	run(t, func(t *testing.T, s *counter, a, _ node) {
		trial := a.begin(guard.Admitted, claim(1), one)
		for range 8 {
			time.Sleep(one.Interval / 3)
			a.begin(guard.Known, claim(1), one).End(false)
		}
		trial.End(true)
		s.holds(t, 1)
		a.check(guard.Known, claim(1), one)
	})
}

// A refresh that is under way when the guard is undone does not bring it back.
func TestAnUndoneGuardIsNotRestoredByARefreshUnderWay(t *testing.T) {
	run(t, func(t *testing.T, s *counter, a, b node) {
		trial := a.begin(guard.Admitted, claim(1), one)
		time.Sleep(one.Interval / 3)
		a.begin(guard.Known, claim(1), one).End(false)
		s.delay.Store(int64(time.Second)) // of the refresh
		time.Sleep(2 * linger)
		s.delay.Store(0)
		trial.End(false)
		b.check(guard.Admitted, claim(2), one)
		time.Sleep(2 * time.Second)
		s.holds(t, 2)
	})
}
