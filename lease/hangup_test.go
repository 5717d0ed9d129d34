package lease

import (
	"sync"
	"testing"
	"time"

	"github.com/streamguard/streamguard/guard"
)

// hangUp has the client of a playback close its connections.
func (n node) hangUp(want bool, c guard.Claim) {
	n.t.Helper()
	switch closed, err := n.HangUp(n.t.Context(), c.User, c.ID); {
	case err != nil && err != ErrNotNow:
		n.t.Fatalf("hang up: %v", err)
	case closed != want:
		n.t.Fatalf("hang up: closed is %v, want %v", closed, want)
	}
	time.Sleep(time.Millisecond) // what is asked in the same one may be from before
}

// state is what the store says of a guard, "" if there is none.
func (s *counter) state(t *testing.T, c guard.Claim) guard.State {
	t.Helper()
	guards, err := s.List(t.Context(), c.User)
	if err != nil {
		t.Fatal(err)
	}
	for i := range guards {
		if guards[i].ID == c.ID {
			return guards[i].State(time.Now())
		}
	}
	return ""
}

func (s *counter) is(t *testing.T, want guard.State, c guard.Claim) {
	t.Helper()
	if is := s.state(t, c); is != want {
		t.Fatalf("the guard is %q, want %q", is, want)
	}
}

// watch starts a playback and has it watched until its guard has been refreshed.
func (n node) watch(c guard.Claim) {
	n.t.Helper()
	n.check(guard.Admitted, c, policy)
	time.Sleep(policy.Interval / 3)
	n.check(guard.Known, c, policy)
	time.Sleep(time.Second)
}

func TestWhoHangsUpHasHisGuardClosedUntilHeComesBack(t *testing.T) {
	run(t, func(t *testing.T, s *counter, a, b node) {
		a.watch(claim(1))
		a.hangUp(true, claim(1))
		s.is(t, guard.Closed, claim(1))
		a.hangUp(false, claim(1)) // it has no lease; the store knows
		a.check(guard.Refreshed, claim(1), policy)
		s.is(t, guard.Active, claim(1))
		a.hangUp(false, claim(1)) // it has come back from a closing
		s.is(t, guard.Active, claim(1))
		a.check(guard.Known, claim(1), policy)
		if n := s.closings.Load(); n != 3 {
			t.Errorf("the store was asked to close %d times, want 3", n)
		}
	})
}

// Of who leaves within a refresh period the store has heard once.
func TestWhoLeavesSoonIsClosed(t *testing.T) {
	run(t, func(t *testing.T, s *counter, a, b node) {
		one := policy
		one.Limit = 1
		for n := range 5 { // as who changes channels
			a.check(guard.Admitted, claim(n), one)
			time.Sleep(time.Second)
			a.check(guard.Known, claim(n), one)
			a.hangUp(true, claim(n))
		}
	})
}

// A refusal is not repeated when a closing has made room.
func TestAClosingOutdatesTheDenialsThatItsGuardCaused(t *testing.T) {
	run(t, func(t *testing.T, s *counter, a, b node) {
		one := policy
		one.Limit = 1
		a.check(guard.Admitted, claim(1), one)
		time.Sleep(10 * time.Second)
		for _, n := range []node{a, b} {
			n.check(guard.Rejected, claim(2), one)
			if v := n.check(guard.Rejected, claim(2), one); !v.Repeated {
				t.Error("the refusal is not remembered")
			}
		}
		a.hangUp(true, claim(1))
		v := b.check(guard.Admitted, claim(2), one)
		if v.Taken != 1 || len(v.Replaced) != 1 || v.Replaced[0] != claim(1).ID {
			t.Errorf("verdict %+v", v)
		}
		a.check(guard.Rejected, claim(3), one)
	})
}

// Who comes back after his slot was taken is told so, and has one again where there is
// room, under the same name: whoever makes that room, on whichever node. That he was
// told is remembered for denialTime, since it names nobody in his way.
func TestWhoseSlotWasTakenComesBackWhereThereIsRoom(t *testing.T) {
	run(t, func(t *testing.T, s *counter, a, b node) {
		one := policy
		one.Limit = 1
		back := func(n node) {
			t.Helper()
			n.check(guard.Admitted, claim(1), one)
			time.Sleep(10 * time.Second)
			n.hangUp(true, claim(1))
			b.check(guard.Admitted, claim(2), one)
			time.Sleep(5 * time.Second)
			n.check(guard.Replaced, claim(1), one)
			if v := n.check(guard.Replaced, claim(1), one); !v.Repeated {
				t.Error("what he was told is not remembered")
			}
		}
		back(a)
		b.Release(t.Context(), "user", claim(2).ID, one)
		time.Sleep(denialTime)
		a.check(guard.Admitted, claim(1), one)
		time.Sleep(10 * time.Second)
		a.hangUp(true, claim(1))
		a.Release(t.Context(), "user", claim(1).ID, one)
		time.Sleep(policy.TTL)

		back(a)
		b.hangUp(true, claim(2))
		time.Sleep(denialTime)
		a.check(guard.Admitted, claim(1), one)
		b.check(guard.Replaced, claim(2), one)
	})
}

// Who has taken a slot and delivers nothing lets whose it was go on, at once.
func TestATakingThatDeliversNothingIsTakenBack(t *testing.T) {
	run(t, func(t *testing.T, s *counter, a, b node) {
		one := policy
		one.Limit = 1
		a.check(guard.Admitted, claim(1), one)
		time.Sleep(10 * time.Second)
		a.hangUp(true, claim(1))
		v, trial, err := b.Check(t.Context(), claim(2), one)
		if err != nil || v.Outcome != guard.Admitted || v.Taken != 1 {
			t.Fatalf("verdict %+v, error %v", v, err)
		}
		a.check(guard.Replaced, claim(1), one)
		trial.End(false)
		time.Sleep(denialTime) // on the other node it is remembered for so long
		a.check(guard.Admitted, claim(1), one)
	})
}

func TestAClosingEndsTheLeaseOnEveryNode(t *testing.T) {
	run(t, func(t *testing.T, s *counter, a, b node) {
		a.watch(claim(1))
		b.check(guard.Refreshed, claim(1), policy)
		b.check(guard.Known, claim(1), policy)
		a.hangUp(true, claim(1))
		b.check(guard.Refreshed, claim(1), policy)
		s.is(t, guard.Active, claim(1))
	})
}

// A start of the same client has doubted what its client has just left. What was
// released is asked about in vain.
func TestWhoWasDoubtedIsClosedAllTheSame(t *testing.T) {
	run(t, func(t *testing.T, s *counter, a, b node) {
		a.watch(equal(1))
		a.doubted(equal(2))
		a.hangUp(true, equal(1))
		s.is(t, guard.Closed, equal(1))
		a.check(guard.Admitted, equal(2), one)
		a.Release(t.Context(), "user", equal(2).ID, one)
		a.hangUp(false, equal(2))
	})
}

// What the store has not granted to this very playback, or is asked for just now, is
// not closed, and the store is not asked.
func TestNothingElseIsClosed(t *testing.T) {
	for name, prepare := range map[string]func(t *testing.T, s *counter, a, b node) guard.Claim{
		"never seen": func(t *testing.T, s *counter, a, b node) guard.Claim {
			b.check(guard.Admitted, claim(1), policy)
			return claim(1)
		},
		"served by another's guard": func(t *testing.T, s *counter, a, b node) guard.Claim {
			a.check(guard.Admitted, claim(1), policy)
			a.check(guard.Refreshed, nameless(2), policy)
			return nameless(2)
		},
		"which serves another": func(t *testing.T, s *counter, a, b node) guard.Claim {
			a.check(guard.Admitted, claim(1), policy)
			a.check(guard.Refreshed, nameless(2), policy)
			time.Sleep(policy.TTL / 2)
			a.check(guard.Known, claim(1), policy)
			time.Sleep(time.Second)
			return claim(1)
		},
		"on trial": func(t *testing.T, s *counter, a, b node) guard.Claim {
			_, trial, err := a.Check(t.Context(), claim(1), policy)
			if err != nil || trial == nil {
				t.Fatalf("trial %v, error %v", trial, err)
			}
			return claim(1)
		},
		"counted by this node alone": func(t *testing.T, s *counter, a, b node) guard.Claim {
			local := policy
			local.CountLocally = true
			s.away.Store(true)
			a.check(guard.Admitted, claim(1), local)
			s.away.Store(false)
			return claim(1)
		},
		"a refresh is queued": func(t *testing.T, s *counter, a, b node) guard.Claim {
			a.check(guard.Admitted, claim(1), policy)
			time.Sleep(policy.Interval / 3)
			a.check(guard.Known, claim(1), policy)
			return claim(1)
		},
		"a refresh is under way": func(t *testing.T, s *counter, a, b node) guard.Claim {
			a.check(guard.Admitted, claim(1), policy)
			time.Sleep(policy.Interval / 3)
			s.delay.Store(int64(time.Second))
			a.check(guard.Known, claim(1), policy)
			time.Sleep(2 * linger)
			return claim(1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(t *testing.T, s *counter, a, b node) {
				c := prepare(t, s, a, b)
				a.hangUp(false, c)
				if n := s.closings.Load(); n != 0 {
					t.Errorf("the store was asked to close %d times", n)
				}
				guards, _ := s.List(t.Context(), "user")
				for i := range guards {
					if guards[i].Closed {
						t.Errorf("%v is closed", guards[i].ID)
					}
				}
			})
		})
	}
}

// Whatever is asked while the store closes the guard, and in whichever order the two
// calls would have taken effect, the guard is active afterwards.
func TestWhoAsksWhileHeIsHungUpGoesOn(t *testing.T) {
	asks := map[string]func(n node){
		"media":      func(n node) { n.check(guard.Refreshed, claim(1), policy) },
		"a manifest": func(n node) { n.check(guard.Refreshed, lookAt(claim(1)), policy) },
		"a sign of life": func(n node) {
			if v, err := n.Keep(n.t.Context(), claim(1), policy); err != nil || v.Outcome != guard.Refreshed {
				n.t.Errorf("%v, %v", v.Outcome, err)
			}
		},
		"an explicit start": func(n node) { n.acquire(guard.Refreshed, claim(1)) },
	}
	for name, ask := range asks {
		for _, after := range []time.Duration{0, 50 * time.Millisecond, 150 * time.Millisecond} {
			t.Run(name+" "+after.String(), func(t *testing.T) {
				run(t, func(t *testing.T, s *counter, a, _ node) {
					a.watch(claim(1))
					time.Sleep(10 * time.Second)
					s.delay.Store(int64(100 * time.Millisecond))
					s.late.Store(int64(100 * time.Millisecond))
					var wg sync.WaitGroup
					wg.Go(func() { a.hangUp(true, claim(1)) })
					wg.Go(func() {
						time.Sleep(after + 1)
						ask(a)
					})
					wg.Wait()
					s.is(t, guard.Active, claim(1))
					a.check(guard.Known, claim(1), policy)
				})
			})
		}
	}
}

// A call that was under way when the guard was closed does not make its playback known
// again: its next request asks the store.
func TestAClosingIsNotUndoneByAnAnswerUnderWay(t *testing.T) {
	run(t, func(t *testing.T, s *counter, a, _ node) {
		a.watch(claim(1))
		time.Sleep(time.Second)
		s.late.Store(int64(time.Second))
		anew := claim(1)
		anew.Anew = true
		var wg sync.WaitGroup
		wg.Go(func() { a.check(guard.Refreshed, anew, policy) })
		time.Sleep(500 * time.Millisecond)
		s.late.Store(0)
		a.hangUp(true, claim(1))
		wg.Wait()
		s.is(t, guard.Closed, claim(1))
		a.check(guard.Refreshed, claim(1), policy)
		s.is(t, guard.Active, claim(1))
	})
}

// Where the store does not close the guard, its playback is known as before.
func TestWhoIsNotClosedStaysKnown(t *testing.T) {
	run(t, func(t *testing.T, s *counter, a, b node) {
		a.watch(claim(1))
		a.hangUp(true, claim(1))
		a.check(guard.Refreshed, claim(1), policy)
		calls := s.acquires.Load()
		a.hangUp(false, claim(1))
		a.check(guard.Known, claim(1), policy)
		time.Sleep(policy.Interval / 3)
		a.check(guard.Known, claim(1), policy)
		time.Sleep(time.Second)
		if n := s.acquires.Load() - calls; n != 1 {
			t.Errorf("%d calls, want one refresh", n)
		}
	})
}

// Only of a guard that was closed before is it certain here that it is never closed again.
func TestWhichGuardsAreNeverClosed(t *testing.T) {
	for name, row := range map[string]struct {
		do   func(*testing.T, node)
		want error
	}{
		"closed, and back": {func(t *testing.T, a node) {
			a.hangUp(true, claim(1))
			a.check(guard.Refreshed, claim(1), policy)
		}, nil},
		"closed": {func(t *testing.T, a node) { a.hangUp(true, claim(1)) }, ErrNotNow},
		"released": {func(t *testing.T, a node) {
			if _, err := a.Release(t.Context(), "user", claim(1).ID, policy); err != nil {
				t.Fatal(err)
			}
		}, ErrNotNow},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(t *testing.T, _ *counter, a, _ node) {
				a.watch(claim(1))
				row.do(t, a)
				if closed, err := a.HangUp(t.Context(), "user", claim(1).ID); closed || err != row.want {
					t.Errorf("closed %v, error %v, want %v", closed, err, row.want)
				}
			})
		})
	}
}

// Where the store does not answer, perhaps it has closed the guard: the playback goes on
// for as long as the store is away, and its next request makes the guard active.
func TestWhoMayBeClosedGoesOnAndIsRefreshed(t *testing.T) {
	run(t, func(t *testing.T, s *counter, a, _ node) {
		a.watch(claim(1))
		s.away.Store(true)
		if closed, err := a.HangUp(t.Context(), "user", claim(1).ID); closed || err == nil {
			t.Fatalf("closed %v, error %v, of a store that is away", closed, err)
		}
		for range 10 { // for longer than the guard's ttl
			a.check(guard.Known, claim(1), policy)
			time.Sleep(policy.TTL / 5)
		}
		a.hangUp(false, claim(1))
		s.away.Store(false)
		a.check(guard.Known, claim(1), policy)
		time.Sleep(time.Second)
		s.is(t, guard.Active, claim(1))
		calls := s.acquires.Load()
		a.check(guard.Known, claim(1), policy)
		time.Sleep(time.Second)
		if n := s.acquires.Load() - calls; n != 0 {
			t.Errorf("a fresh lease costs %d calls", n)
		}
	})
}

// The answer to a closing is lost, not the closing.
func TestALostAnswerToAClosingLeavesNobodyClosed(t *testing.T) {
	run(t, func(t *testing.T, s *counter, a, _ node) {
		a.watch(claim(1))
		s.deaf.Store(true)
		if closed, err := a.HangUp(t.Context(), "user", claim(1).ID); closed || err == nil {
			t.Fatalf("closed %v, error %v, where the answer is lost", closed, err)
		}
		s.deaf.Store(false)
		s.is(t, guard.Closed, claim(1))
		a.check(guard.Known, claim(1), policy)
		time.Sleep(2 * linger)
		s.is(t, guard.Active, claim(1))
	})
}

func TestWhoWaitsForADoubtedGuardIsWokenByItsClosing(t *testing.T) {
	run(t, func(t *testing.T, s *counter, a, b node) {
		a.watch(claim(1))
		v := guard.Verdict{Limit: 1, InTheWay: []guard.Guard{{ID: claim(1).ID}}}
		start := claim(2)
		news, leave, ok := b.Wait(&start, &v)
		if !ok {
			t.Fatal("it may not wait")
		}
		defer leave()
		wait := news()
		a.hangUp(true, claim(1))
		select {
		case <-wait:
		default:
			t.Error("it was not woken")
		}
	})
}
