package lease

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/guard/guardtest"
	"github.com/streamguard/streamguard/memstore"
)

var policy = guard.Policy{Limit: 3, Interval: 60 * time.Second, TTL: 90 * time.Second}

func claim(n int) guard.Claim {
	return guard.Claim{User: "user", ID: guard.DeriveID("user", "", fmt.Sprint(n)), Stream: "movie", Named: true}
}

// counter is a store that counts what it is asked, can be away, slow, and be
// shared by keepers that hear of each other.
type counter struct {
	*memstore.Store
	acquires, batches, undos, closings atomic.Int64
	away                               atomic.Bool
	delay, late                        atomic.Int64 // of a question and of an answer, in nanoseconds
	mute                               atomic.Bool  // what is published is lost
	heeds                              atomic.Bool  // a call ends with its context
	deaf                               atomic.Bool  // the answer to a closing is lost, and its news

	mu       sync.Mutex
	watchers []func(guard.News)
}

var errAway = errors.New("away")

func (s *counter) Acquire(ctx context.Context, c guard.Claim, p guard.Policy) (guard.Verdict, error) {
	s.acquires.Add(1)
	if err := s.reach(ctx); err != nil {
		return guard.Verdict{}, err
	}
	defer func() { time.Sleep(time.Duration(s.late.Load())) }()
	v, err := s.Store.Acquire(ctx, c, p)
	s.tell(v)
	return v, err
}

// tell publishes what a verdict has news of.
func (s *counter) tell(v guard.Verdict) {
	for _, ids := range [][]guard.ID{v.Replaced, v.Doubted} {
		for _, id := range ids {
			s.publish(id)
		}
	}
	if v.Answered {
		s.publish(v.Guard.ID)
	}
}

func (s *counter) Refresh(ctx context.Context, user string, id guard.ID, p guard.Policy) (guard.Verdict, error) {
	if err := s.reach(ctx); err != nil {
		return guard.Verdict{}, err
	}
	v, err := s.Store.Refresh(ctx, user, id, p)
	s.tell(v)
	return v, err
}

func (s *counter) CloseGuard(ctx context.Context, user string, id guard.ID) (bool, error) {
	s.closings.Add(1)
	if err := s.reach(ctx); err != nil {
		return false, err
	}
	defer func() { time.Sleep(time.Duration(s.late.Load())) }()
	closed, err := s.Store.CloseGuard(ctx, user, id)
	if s.deaf.Load() {
		return false, errAway
	}
	if closed {
		s.publish(id)
	}
	return closed, err
}

func (s *counter) Undo(ctx context.Context, user string, id guard.ID, replaced []guard.ID) (bool, error) {
	s.undos.Add(1)
	if err := s.reach(ctx); err != nil {
		return false, err
	}
	undone, err := s.Store.Undo(ctx, user, id, replaced)
	if undone {
		s.publish(id)
	}
	return undone, err
}

func (s *counter) reach(ctx context.Context) error {
	time.Sleep(time.Duration(s.delay.Load())) // in virtual time
	switch {
	case s.heeds.Load() && ctx.Err() != nil:
		return ctx.Err()
	case s.away.Load():
		return errAway
	}
	return nil
}

func (s *counter) AcquireAll(ctx context.Context, requests []guard.Request) []guard.Answer {
	s.batches.Add(1)
	answers := make([]guard.Answer, len(requests))
	for i, r := range requests {
		answers[i].Verdict, answers[i].Err = s.Acquire(ctx, r.Claim, r.Policy)
	}
	return answers
}

func (s *counter) publish(id guard.ID) { s.Tell(context.Background(), guard.News{ID: id}) }

func (s *counter) Release(ctx context.Context, user string, id guard.ID, p guard.Policy) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	defer s.publish(id)
	return s.Store.Release(ctx, user, id, p)
}

func (s *counter) Revoke(ctx context.Context, user string, id guard.ID, p guard.Policy) (bool, error) {
	defer s.publish(id)
	return s.Store.Revoke(ctx, user, id, p)
}

func (s *counter) Watch(ctx context.Context, heard func(guard.News)) {
	s.mu.Lock()
	s.watchers = append(s.watchers, heard)
	s.mu.Unlock()
	<-ctx.Done()
}

func (s *counter) Tell(_ context.Context, about guard.News) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.watchers {
		if !s.mute.Load() {
			w(about)
		}
	}
	return nil
}

// node is a keeper and its tests' words.
type node struct {
	*Keeper
	t *testing.T
}

// delivered is what was said to a request for media that is answered with them.
func delivered(v guard.Verdict, trial *Trial, err error) (guard.Verdict, error) {
	trial.End(true)
	return v, err
}

// check is a request for media that is delivered.
func (n node) check(want guard.Outcome, c guard.Claim, p guard.Policy) guard.Verdict {
	n.t.Helper()
	v, err := delivered(n.Check(context.Background(), c, p))
	if err != nil {
		n.t.Fatalf("check: %v", err)
	}
	if v.Outcome != want {
		n.t.Fatalf("check: %v, want %v", v.Outcome, want)
	}
	return v
}

// run runs a test of two nodes over one store in virtual time.
func run(t *testing.T, test func(t *testing.T, s *counter, a, b node)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &counter{Store: memstore.New()}
		defer s.Store.Close()
		local := memstore.New()
		defer local.Close()
		a, b := New(s, local, nil), New(s, local, nil)
		defer a.Close()
		defer b.Close()
		synctest.Wait() // both watch
		test(t, s, node{a, t}, node{b, t})
	})
}

func TestKeeperIsAStore(t *testing.T) {
	guardtest.Run(t, func(t *testing.T, test func(*testing.T, guardtest.Harness)) {
		synctest.Test(t, func(t *testing.T) {
			s, local := memstore.New(), memstore.New()
			k := New(s, local, nil)
			test(t, guardtest.Harness{Store: k, Advance: time.Sleep, Size: s.Size})
			k.Close()
			local.Close()
			s.Close()
		})
	})
}

func TestAFreshLeaseCostsNoCall(t *testing.T) {
	run(t, func(t *testing.T, s *counter, a, _ node) {
		a.check(guard.Admitted, claim(1), policy)
		for range 1000 {
			v := a.check(guard.Known, claim(1), policy)
			if v.Held != 1 || v.Limit != 3 || v.Guard.ID != claim(1).ID {
				t.Fatalf("verdict %+v", v)
			}
		}
		if n := s.acquires.Load(); n != 1 {
			t.Errorf("%d calls, want 1", n)
		}
	})
}

func TestAnAgeingLeasePassesAndIsRefreshedOnce(t *testing.T) {
	run(t, func(t *testing.T, s *counter, a, _ node) {
		a.check(guard.Admitted, claim(1), policy)
		time.Sleep(policy.Interval / 3)
		s.delay.Store(int64(time.Second))
		for range 100 {
			a.check(guard.Known, claim(1), policy)
		}
		time.Sleep(2 * time.Second)
		if n := s.acquires.Load(); n != 2 {
			t.Errorf("%d calls, want one acquire and one refresh", n)
		}
		guards, _ := s.List(t.Context(), "user")
		if age := time.Until(guards[0].RemovedAt); age < policy.TTL-3*time.Second {
			t.Errorf("the guard lives for another %v", age)
		}
	})
}

func TestRefreshesAreBatched(t *testing.T) {
	run(t, func(t *testing.T, s *counter, a, _ node) {
		many := policy
		many.Limit = guard.MaxLimit
		for n := range 500 {
			a.check(guard.Admitted, claim(n), many)
		}
		time.Sleep(policy.Interval / 3)
		for n := range 500 {
			a.check(guard.Known, claim(n), many)
		}
		time.Sleep(time.Second)
		if n := s.acquires.Load(); n != 1000 {
			t.Errorf("%d calls, want 500 acquires and 500 refreshes", n)
		}
		if n := s.batches.Load(); n > 10 {
			t.Errorf("%d batches for 500 refreshes", n)
		}
	})
}

func TestRefreshesDoNotRunInStep(t *testing.T) {
	first, last := policy.Interval, time.Duration(0)
	for n := range 1000 {
		after := refreshAfter(claim(n).ID, policy.Interval)
		first, last = min(first, after), max(last, after)
	}
	if first < 18*time.Second || first > 18100*time.Millisecond || last > 20*time.Second || last < 19900*time.Millisecond {
		t.Errorf("refreshes after %v to %v, want 18s to 20s", first, last)
	}
}

// A full queue loses no lease: a later request tries again.
func TestAFullQueueOnlyDelays(t *testing.T) {
	run(t, func(t *testing.T, s *counter, a, _ node) {
		many := policy
		many.Limit = 100
		users := 3 * queued / many.Limit
		each := func(want guard.Outcome) {
			for u := range users {
				for n := range many.Limit {
					c := claim(n)
					c.User = fmt.Sprint(u)
					c.ID = guard.DeriveID(c.User, "", fmt.Sprint(n))
					a.check(want, c, many)
				}
			}
		}
		each(guard.Admitted)
		total := int64(users * many.Limit)
		time.Sleep(20 * time.Second)
		s.delay.Store(int64(time.Millisecond))
		for s.acquires.Load() < 2*total {
			each(guard.Known)
			time.Sleep(time.Second)
		}
		if n := s.acquires.Load(); n > 2*total+total/10 {
			t.Errorf("%d calls for %d leases", n, total)
		}
	})
}

func TestConcurrentRequestsShareOneAcquire(t *testing.T) {
	run(t, func(t *testing.T, s *counter, a, _ node) {
		s.delay.Store(int64(100 * time.Millisecond))
		var wg sync.WaitGroup
		var admitted, refreshed atomic.Int64
		for range 173 {
			wg.Go(func() {
				switch v, err := delivered(a.Check(t.Context(), claim(1), policy)); {
				case err != nil:
					t.Error(err)
				case v.Outcome == guard.Admitted:
					admitted.Add(1)
				case v.Outcome == guard.Refreshed:
					refreshed.Add(1)
				}
			})
		}
		wg.Wait()
		if n := s.acquires.Load(); n != 1 {
			t.Errorf("%d calls, want 1", n)
		}
		if admitted.Load() != 1 || refreshed.Load() != 172 {
			t.Errorf("%d requests were admitted and %d found the guard, want 1 and 172", admitted.Load(), refreshed.Load())
		}
	})
}

func TestACancelledRequestLeavesTheAcquireToTheOthers(t *testing.T) {
	for name, delayed := range map[string]struct {
		question bool
		calls    int64
	}{
		"before the store is asked": {true, 2}, // for another it is no start
		"while the store answers":   {false, 1},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(t *testing.T, s *counter, a, _ node) {
				if delayed.question {
					s.delay.Store(int64(100 * time.Millisecond))
				} else {
					s.late.Store(int64(100 * time.Millisecond))
				}
				ctx, cancel := context.WithCancel(t.Context())
				var wg sync.WaitGroup
				wg.Go(func() {
					if _, err := delivered(a.Check(ctx, claim(1), policy)); !errors.Is(err, context.Canceled) {
						t.Errorf("the cancelled request: %v", err)
					}
				})
				synctest.Wait()
				wg.Go(func() { a.check(guard.Admitted, claim(1), policy) })
				synctest.Wait()
				cancel()
				wg.Wait()
				a.check(guard.Known, claim(1), policy)
				if n := s.acquires.Load(); n != delayed.calls {
					t.Errorf("%d calls, want %d", n, delayed.calls)
				}
			})
		})
	}
}

// A viewer changes channels so fast that the start of the one he has left comes to the
// store after that of the one he is on, by another node.
func TestWhoHasGoneReplacesNobody(t *testing.T) {
	last := guard.Policy{Limit: 1, AtLimit: guard.ReplaceOldest, Interval: policy.Interval, TTL: policy.TTL}
	for name, ask := range map[string]func(context.Context, node) (guard.Verdict, error){
		"media": func(ctx context.Context, n node) (guard.Verdict, error) {
			return delivered(n.Check(ctx, claim(1), last))
		},
		"POST": func(ctx context.Context, n node) (guard.Verdict, error) { return n.Acquire(ctx, claim(1), last) },
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(t *testing.T, s *counter, a, b node) {
				s.delay.Store(int64(100 * time.Millisecond))
				ctx, leave := context.WithCancel(t.Context())
				var left sync.WaitGroup
				left.Go(func() {
					if v, err := ask(ctx, a); v.Outcome != guard.Vacant && !errors.Is(err, context.Canceled) {
						t.Errorf("what was left: %v, %v", v.Outcome, err)
					}
				})
				synctest.Wait()
				leave()
				s.delay.Store(0)
				b.check(guard.Admitted, claim(2), last)
				left.Wait()
				time.Sleep(time.Second) // in virtual time
				s.holds(t, 2)
				b.check(guard.Known, claim(2), last)
				// It is as if it had not been asked for.
				if v, err := ask(t.Context(), a); err != nil || v.Outcome != guard.Admitted {
					t.Errorf("what is begun after all: %v, %v", v.Outcome, err)
				}
				s.holds(t, 1)
			})
		})
	}
}

// Whoever was refused may start as soon as another stops, on any node.
func TestAReleaseOutdatesTheDenialsThatItCaused(t *testing.T) {
	run(t, func(t *testing.T, s *counter, a, b node) {
		one := policy
		one.Limit = 1
		a.check(guard.Admitted, claim(1), one)
		a.check(guard.Rejected, claim(2), one)
		time.Sleep(10 * time.Millisecond)
		if _, err := b.Release(t.Context(), "user", claim(1).ID, one); err != nil {
			t.Fatal(err)
		}
		a.check(guard.Admitted, claim(2), one)
		a.check(guard.Rejected, claim(3), one)
		asked := s.acquires.Load()
		a.check(guard.Rejected, claim(3), one)
		if s.acquires.Load() != asked {
			t.Error("a denial from after the release is not remembered")
		}
	})
}

// Who is only observed has not been denied by another handler's limit; who was
// revoked has.
func TestADenialAtALimitIsNotOfWhoIsObserved(t *testing.T) {
	run(t, func(t *testing.T, s *counter, a, _ node) {
		enforced := policy
		enforced.Limit = 1
		observed := enforced
		observed.Observe = true
		a.check(guard.Admitted, claim(1), enforced)
		a.check(guard.Rejected, claim(2), enforced)
		a.check(guard.Admitted, claim(2), observed)
		a.Revoke(t.Context(), claim(2).User, claim(2).ID, policy)
		time.Sleep(10 * time.Millisecond)
		a.check(guard.Revoked, claim(2), observed)
		if v := a.check(guard.Revoked, claim(2), observed); !v.Repeated {
			t.Error("the store was asked again about a revoked playback")
		}
	})
}

func TestADenialIsRememberedForTwoSeconds(t *testing.T) {
	run(t, func(t *testing.T, s *counter, a, _ node) {
		for n := range 3 {
			a.check(guard.Admitted, claim(n), policy)
		}
		if v := a.check(guard.Rejected, claim(3), policy); v.Repeated || len(v.InTheWay) != 3 {
			t.Errorf("first: %+v", v)
		}
		time.Sleep(1500 * time.Millisecond)
		for range 2900 { // what video.js asks in a minute
			v := a.check(guard.Rejected, claim(3), policy)
			if !v.Repeated || len(v.InTheWay) != 3 || v.FreeIn != 88500*time.Millisecond {
				t.Fatalf("repeated: %+v", v)
			}
		}
		if n := s.acquires.Load(); n != 4 {
			t.Errorf("%d calls, want 4", n)
		}
		time.Sleep(500 * time.Millisecond)
		a.check(guard.Rejected, claim(3), policy)
		if n := s.acquires.Load(); n != 5 {
			t.Errorf("%d calls, want 5: the denial is forgotten", n)
		}
		// Another limit is another question.
		more := policy
		more.Limit = 4
		a.check(guard.Admitted, claim(3), more)
		a.check(guard.Known, claim(3), policy)
	})
}

func TestEndingsTravelAtOnce(t *testing.T) {
	run(t, func(t *testing.T, s *counter, a, b node) {
		a.check(guard.Admitted, claim(1), policy)
		b.check(guard.Refreshed, claim(1), policy)
		if _, err := a.Revoke(t.Context(), "user", claim(1).ID, policy); err != nil {
			t.Fatal(err)
		}
		a.check(guard.Revoked, claim(1), policy)
		b.check(guard.Revoked, claim(1), policy)

		b.check(guard.Admitted, claim(2), policy)
		a.check(guard.Refreshed, claim(2), policy)
		time.Sleep(guard.Settle)
		if _, err := a.Release(t.Context(), "user", claim(2).ID, policy); err != nil {
			t.Fatal(err)
		}
		a.check(guard.Released, claim(2), policy)
		b.check(guard.Released, claim(2), policy)
	})
}

func TestALostMessageCostsAtMostOneRefresh(t *testing.T) {
	run(t, func(t *testing.T, s *counter, a, b node) {
		b.check(guard.Admitted, claim(1), policy)
		b.check(guard.Admitted, claim(2), policy)
		s.mute.Store(true)
		if _, err := a.Revoke(t.Context(), "user", claim(1).ID, policy); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Release(t.Context(), "user", claim(2).ID, policy); err != nil {
			t.Fatal(err)
		}
		for range 5 {
			b.check(guard.Known, claim(1), policy)
			b.check(guard.Known, claim(2), policy)
			time.Sleep(4 * time.Second)
		}
		b.check(guard.Known, claim(1), policy) // has it refreshed
		b.check(guard.Known, claim(2), policy)
		time.Sleep(time.Second)
		b.check(guard.Revoked, claim(1), policy)
		if guards, _ := s.List(t.Context(), "user"); len(guards) != 0 {
			t.Errorf("the refresh brought back %+v", guards)
		}
		b.check(guard.Admitted, claim(2), policy) // a release is long over: it is a new start
	})
}

// A refresh under way when its playback is released does not bring it back.
func TestAReleaseIsNotUndoneByARefreshUnderWay(t *testing.T) {
	run(t, func(t *testing.T, s *counter, a, _ node) {
		a.check(guard.Admitted, claim(1), policy)
		time.Sleep(20 * time.Second)
		a.check(guard.Known, claim(1), policy)
		s.delay.Store(int64(time.Second))
		time.Sleep(2 * linger)
		if _, err := a.Release(t.Context(), "user", claim(1).ID, policy); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		if n := a.leases.len(); n != 0 {
			t.Errorf("%d leases, want none", n)
		}
		if guards, _ := s.List(t.Context(), "user"); len(guards) != 0 {
			t.Errorf("the user holds %+v", guards)
		}
	})
}

func TestAnOldLeaseAsksAgain(t *testing.T) {
	run(t, func(t *testing.T, s *counter, a, _ node) {
		one := policy
		one.Limit = 1
		a.check(guard.Admitted, claim(1), one)
		time.Sleep(policy.TTL)
		a.check(guard.Admitted, claim(2), one)
		a.check(guard.Rejected, claim(1), one)
	})
}

// A hidden tab is silent for 59.8 s, and never refused.
func TestAHiddenTabIsNeverRefused(t *testing.T) {
	run(t, func(t *testing.T, s *counter, a, b node) {
		one := policy
		one.Limit = 1
		a.check(guard.Admitted, claim(1), one)
		time.Sleep(17 * time.Second)
		a.check(guard.Known, claim(1), one)
		for range 60 {
			time.Sleep(59800 * time.Millisecond)
			a.check(guard.Known, claim(1), one)
			b.check(guard.Rejected, claim(2), one)
			a.check(guard.Known, claim(1), one)
		}
	})
}

func TestReclaimLapsedAsksWhenTheGuardIsNoLongerActive(t *testing.T) {
	run(t, func(t *testing.T, s *counter, a, b node) {
		p := policy
		p.Limit, p.Reclaim = 1, guard.ReclaimLapsed
		a.check(guard.Admitted, claim(1), p)
		time.Sleep(p.Interval)
		b.check(guard.Admitted, claim(2), p)
		a.check(guard.Replaced, claim(1), p)
	})
}

func TestZappingMovesTheGuardWithoutADetour(t *testing.T) {
	run(t, func(t *testing.T, s *counter, a, _ node) {
		one := policy
		one.Limit = 1
		a.check(guard.Admitted, claim(1), one)
		for n := range 30 {
			time.Sleep(2 * time.Second)
			c := claim(1)
			c.Stream = fmt.Sprint("channel ", n)
			a.check(guard.Known, c, one)
			time.Sleep(2 * linger)
			guards, _ := s.List(t.Context(), "user")
			if len(guards) != 1 || guards[0].Stream != c.Stream {
				t.Fatalf("the user holds %+v, want one guard on %s", guards, c.Stream)
			}
		}
		// Two trees in turn, as with spliced advertisements, move it once a second.
		before := s.acquires.Load()
		for n := range 100 {
			c := claim(1)
			c.Stream = fmt.Sprint(n % 2)
			a.check(guard.Known, c, one)
			time.Sleep(100 * time.Millisecond)
		}
		if n := s.acquires.Load() - before; n > 11 {
			t.Errorf("%d calls in 10 s", n)
		}
	})
}

func TestAClaimWithoutAStreamMovesNothing(t *testing.T) {
	run(t, func(t *testing.T, s *counter, a, b node) {
		heartbeat := claim(1)
		heartbeat.Stream = ""
		a.check(guard.Admitted, claim(1), policy)
		b.check(guard.Refreshed, heartbeat, policy)
		calls := s.acquires.Load()
		for range 9 { // in turn, each more than moveInterval after the last
			for _, c := range []guard.Claim{heartbeat, claim(1)} {
				a.check(guard.Known, c, policy)
				b.check(guard.Known, c, policy)
				time.Sleep(moveInterval)
			}
		}
		if n := s.acquires.Load() - calls; n != 0 {
			t.Errorf("%d calls within refreshAfter, want none", n)
		}
		time.Sleep(policy.Interval / 3)
		a.check(guard.Known, heartbeat, policy)
		time.Sleep(moveInterval)
		a.check(guard.Known, claim(1), policy)
		if n := s.acquires.Load() - calls; n != 1 {
			t.Errorf("%d calls after refreshAfter, want 1", n)
		}
		if guards, _ := s.List(t.Context(), "user"); len(guards) != 1 || guards[0].Stream != "movie" {
			t.Errorf("held: %+v", guards)
		}
	})
}

func TestALostGuardIsRestoredPastTheLimit(t *testing.T) {
	run(t, func(t *testing.T, s *counter, a, b node) {
		one := policy
		one.Limit = 1
		a.check(guard.Admitted, claim(1), one)
		// The store loses the guard, as in a failover, and another takes the slot.
		s.Store.Release(t.Context(), "user", claim(1).ID, guard.Policy{})
		b.check(guard.Admitted, claim(2), one)
		time.Sleep(20 * time.Second)
		a.check(guard.Known, claim(1), one)
		time.Sleep(time.Second)
		a.check(guard.Known, claim(1), one)
		if guards, _ := s.List(t.Context(), "user"); len(guards) != 2 {
			t.Errorf("the user holds %+v, want both who were admitted", guards)
		}
		b.check(guard.Rejected, claim(3), one)
	})
}

func TestViewersGoOnWhileTheStoreIsAway(t *testing.T) {
	for _, locally := range []bool{true, false} {
		run(t, func(t *testing.T, s *counter, a, _ node) {
			p := policy
			p.CountLocally = locally
			for n := range 3 {
				a.check(guard.Admitted, claim(n), p)
			}
			s.away.Store(true)
			for range 300 / 4 { // five minutes
				time.Sleep(4 * time.Second)
				for n := range 3 {
					a.check(guard.Known, claim(n), p)
				}
			}
			if !locally {
				if _, err := delivered(a.Check(t.Context(), claim(4), p)); !errors.Is(err, errAway) {
					t.Errorf("an unknown playback: %v", err)
				}
			} else {
				a.check(guard.Rejected, claim(4), p)
				other := claim(5)
				other.User = "other"
				a.check(guard.Admitted, other, p)
			}
			// The store is back without a memory: it has all of them again at
			// once with their next refresh.
			s.away.Store(false)
			for range 6 {
				time.Sleep(4 * time.Second)
				for n := range 3 {
					a.check(guard.Known, claim(n), p)
				}
			}
			if guards, _ := s.List(t.Context(), "user"); len(guards) != 3 {
				t.Errorf("the store has %+v, want all three", guards)
			}
		})
	}
}

func TestAtItsBoundTheKeeperAsksTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &counter{Store: memstore.New()}
		local := memstore.New()
		k := node{running(newKeeper(s, local, nil, 2, time.Now), 1), t}
		for n := range 3 {
			k.check(guard.Admitted, claim(n), policy)
		}
		for range 10 {
			k.check(guard.Known, claim(0), policy)
			k.check(guard.Known, claim(1), policy)
			k.check(guard.Refreshed, claim(2), policy) // plays all the same
		}
		k.Close()
		local.Close()
		s.Close()
	})
}

func TestTheTableShrinks(t *testing.T) {
	run(t, func(t *testing.T, s *counter, a, _ node) {
		for n := range 10_000 {
			c := claim(n)
			c.User = fmt.Sprint(n / 3)
			a.check(guard.Admitted, c, policy)
		}
		for n := range 100 {
			a.check(guard.Rejected, claim(10_000+n), guard.Policy{Interval: time.Second, TTL: 2 * time.Second})
		}
		time.Sleep(policy.TTL + sweepEvery)
		if n, m := a.leases.len(), a.denials.len(); n != 0 || m != 0 {
			t.Errorf("%d leases and %d denials, want none", n, m)
		}
	})
}

// The patterns of real players, as measured: what one viewer costs the store.
func TestStoreCallsPerViewerMinute(t *testing.T) {
	for _, c := range []struct {
		name string
		gap  time.Duration // between requests
	}{
		{"4 s segments, audio and video", 2 * time.Second},
		{"4 s segments", 4 * time.Second},
		{"live", time.Second},
		{"low latency", 250 * time.Millisecond},
		{"6 s segments", 6 * time.Second},
		{"hidden tab", 59800 * time.Millisecond},
	} {
		run(t, func(t *testing.T, s *counter, a, _ node) {
			const minutes = 60
			a.check(guard.Admitted, claim(1), policy)
			for range 172 { // the start-up burst
				time.Sleep(58 * time.Millisecond)
				a.check(guard.Known, claim(1), policy)
			}
			start, before := time.Now(), s.acquires.Load()
			for time.Since(start) < minutes*time.Minute {
				time.Sleep(c.gap)
				a.check(guard.Known, claim(1), policy)
			}
			if perMinute := float64(s.acquires.Load()-before) / minutes; perMinute > 3.2 {
				t.Errorf("%s: %.2f calls a minute, want at most 3.2", c.name, perMinute)
			} else {
				t.Logf("%s: %.2f calls a minute", c.name, perMinute)
			}
		})
	}
}

// A reload that makes intervals longer finds leases that end sooner than the
// new interval has them refreshed.
func TestALongerIntervalInterruptsNobody(t *testing.T) {
	run(t, func(t *testing.T, s *counter, a, b node) {
		short, long := policy, policy
		short.Limit, long.Limit = 1, 1
		long.Interval, long.TTL = 10*time.Minute, 15*time.Minute
		a.check(guard.Admitted, claim(1), short)
		for range 60 {
			time.Sleep(4 * time.Second)
			b.check(guard.Rejected, claim(2), long)
			a.check(guard.Known, claim(1), long)
		}
	})
}

// Where lapsed guards may lose their slots a lease ends with the guard, whatever the interval is by then.
func TestALongerIntervalProlongsNoLease(t *testing.T) {
	run(t, func(t *testing.T, s *counter, a, b node) {
		p := policy
		p.Limit, p.Reclaim = 1, guard.ReclaimLapsed
		a.check(guard.Admitted, claim(1), p)
		time.Sleep(p.TTL)
		p.Interval, p.TTL = 10*time.Minute, 15*time.Minute
		b.check(guard.Admitted, claim(2), p)
		a.check(guard.Rejected, claim(1), p)
	})
}

// An answer from before an ending that comes after it leaves nothing behind.
func TestAnEndingIsNotUndoneByAnAcquireUnderWay(t *testing.T) {
	run(t, func(t *testing.T, s *counter, a, b node) {
		for n, end := range []func(context.Context, string, guard.ID, guard.Policy) (bool, error){a.Release, b.Release, a.Revoke, b.Revoke} {
			s.late.Store(int64(9 * time.Second))
			var asked sync.WaitGroup
			asked.Go(func() { a.check(guard.Admitted, claim(n), policy) })
			time.Sleep(guard.Settle)
			if found, err := end(t.Context(), "user", claim(n).ID, policy); !found || err != nil {
				t.Fatal(found, err)
			}
			s.late.Store(0)
			asked.Wait()
			want := guard.Released
			if n >= 2 {
				want = guard.Revoked
			}
			a.check(want, claim(n), policy)
		}
	})
}

// Who starts again is not told what somebody asked before the ending.
func TestAStartAfterAnEndingIsAskedAnew(t *testing.T) {
	run(t, func(t *testing.T, s *counter, a, _ node) {
		s.late.Store(int64(100 * time.Millisecond))
		start := claim(1)
		start.Anew = true
		var asked sync.WaitGroup
		asked.Go(func() { a.check(guard.Admitted, start, policy) })
		time.Sleep(50 * time.Millisecond)
		if found, err := a.Release(t.Context(), "user", start.ID, policy); !found || err != nil {
			t.Fatal(found, err)
		}
		a.check(guard.Admitted, start, policy)
		asked.Wait()
		if guards, _ := s.List(t.Context(), "user"); len(guards) != 1 {
			t.Errorf("the user holds %+v", guards)
		}
	})
}

// What another has replaced stops, until it starts anew.
func TestAReplacedPlaybackStopsUntilItStartsAnew(t *testing.T) {
	run(t, func(t *testing.T, s *counter, a, b node) {
		p := policy
		p.Limit, p.AtLimit = 1, guard.ReplaceOldest
		b.check(guard.Admitted, claim(1), p)
		a.check(guard.Admitted, claim(2), p)
		time.Sleep(10 * time.Millisecond)
		asked := s.acquires.Load()
		for range 100 {
			b.check(guard.Replaced, claim(1), p)
		}
		if n := s.acquires.Load() - asked; n != 1 {
			t.Errorf("%d calls of who is stopped, want 1", n)
		}
		anew := claim(1)
		anew.Anew = true
		b.check(guard.Admitted, anew, p)
		time.Sleep(10 * time.Millisecond)
		a.check(guard.Replaced, claim(2), p)
	})
}

func TestAMomentAheadIsNotLongAgo(t *testing.T) {
	const now, wrapped moment = 5, 1<<32 - 5
	for _, c := range []struct {
		m, earlier moment
		want       time.Duration
	}{
		{now, now, 0},
		{now, now - 2, 2 * time.Millisecond},
		{now - 2, now, -2 * time.Millisecond},
		{now, wrapped, 10 * time.Millisecond},
		{wrapped, now, -10 * time.Millisecond},
	} {
		if got := c.m.since(c.earlier); got != c.want {
			t.Errorf("from %d to %d: %v, want %v", c.earlier, c.m, got, c.want)
		}
	}
	over := moment(milliseconds(1000 * time.Hour)).since(0)
	if over <= 0 || over+sweepEvery < over { // the longest ttl there is
		t.Errorf("the longest lease is over after %v", over)
	}
}

// Refreshes that Close interrupts are no trouble with the store.
func TestClosingIsNoTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &counter{Store: memstore.New()}
		local := memstore.New()
		k := node{New(s, local, func(err error) { t.Error(err) }), t}
		k.check(guard.Admitted, claim(1), policy)
		time.Sleep(policy.Interval / 3)
		k.check(guard.Known, claim(1), policy)
		s.away.Store(true) // what is closed answers nobody
		k.Close()
		local.Close()
		s.Store.Close()
	})
}

// Started again while the store is away, a playback that was released plays on
// when it is back; one that was released since does not.
func TestAStartWhileTheStoreIsAwayOutlivesAnEarlierRelease(t *testing.T) {
	for _, releasedSince := range []bool{false, true} {
		run(t, func(t *testing.T, s *counter, a, b node) {
			p := policy
			p.Limit, p.CountLocally = 1, true
			start := claim(1)
			start.Anew = true
			a.check(guard.Admitted, start, p)
			if !releasedSince {
				s.Release(t.Context(), "user", start.ID, p)
			}
			time.Sleep(10 * time.Second)
			s.away.Store(true)
			a.leases.delete(start.ID) // as the release's news would have it
			a.check(guard.Admitted, start, p)
			for range 10 { // not even the first refresh finds the store
				time.Sleep(3 * time.Second)
				a.check(guard.Known, claim(1), p)
			}
			if releasedSince {
				s.mute.Store(true)
				s.Release(t.Context(), "user", start.ID, p)
			}
			s.away.Store(false)
			b.check(guard.Admitted, claim(2), p)
			want := guard.Known
			if releasedSince {
				want = guard.Rejected
			}
			var got guard.Verdict
			for range 8 {
				time.Sleep(3 * time.Second)
				got, _ = delivered(a.Check(t.Context(), claim(1), p))
			}
			if got.Outcome != want {
				t.Errorf("released since %v: %v, want %v", releasedSince, got.Outcome, want)
			}
		})
	}
}

// An ending is heard however many there are.
func TestNoEndingIsLostAmongMany(t *testing.T) {
	run(t, func(t *testing.T, s *counter, a, b node) {
		one := policy
		one.Limit = 1
		for n := range 100_000 {
			a.forget(stranger(n).ID)
		}
		time.Sleep(time.Second)
		s.late.Store(int64(9 * time.Second))
		var asked sync.WaitGroup
		asked.Go(func() { a.check(guard.Admitted, claim(1), one) })
		time.Sleep(guard.Settle)
		if found, err := b.Release(t.Context(), "user", claim(1).ID, one); !found || err != nil {
			t.Fatal(found, err)
		}
		s.late.Store(0)
		asked.Wait()
		a.check(guard.Released, claim(1), one)

		b.check(guard.Admitted, claim(2), one)
		a.check(guard.Rejected, claim(3), one)
		if found, err := b.Release(t.Context(), "user", claim(2).ID, one); !found || err != nil {
			t.Fatal(found, err)
		}
		a.check(guard.Admitted, claim(3), one)
	})
}

// nameless is a request for media that has lost every name.
func nameless(n int) guard.Claim {
	c := claim(n)
	c.Named, c.Nameless = false, true
	return c
}

// A playback without an id that holds a guard of its own is restored like others.
func TestALostGuardOfAPlaybackWithoutIDIsRestored(t *testing.T) {
	run(t, func(t *testing.T, s *counter, a, b node) {
		one := policy
		one.Limit = 1
		start := nameless(1)
		a.check(guard.Admitted, start, one)
		s.Store.Release(t.Context(), "user", start.ID, guard.Policy{}) // lost
		other := claim(2)
		other.Stream = "another"
		b.check(guard.Admitted, other, one)
		for range 20 {
			time.Sleep(2 * time.Second)
			a.check(guard.Known, nameless(1), one)
		}
		if guards, _ := s.List(t.Context(), "user"); len(guards) != 2 {
			t.Errorf("the user holds %+v, want both who were admitted", guards)
		}
	})
}

// Who is served by another playback's guard gets none beside it, by media or by a look.
func TestASharedGuardIsNotDoubled(t *testing.T) {
	for _, intent := range []guard.Intent{guard.Play, guard.Look} {
		run(t, func(t *testing.T, s *counter, a, _ node) {
			one := policy
			one.Limit = 1
			manifest := claim(1)
			manifest.Named = false
			a.check(guard.Admitted, manifest, one)
			a.check(guard.Refreshed, nameless(9), one)
			again := nameless(9)
			again.Intent = intent
			for range 30 {
				time.Sleep(2 * time.Second)
				a.check(guard.Known, again, one)
			}
			if guards, _ := s.List(t.Context(), "user"); len(guards) != 1 {
				t.Errorf("the user holds %+v", guards)
			}
		})
	}
}

// Two handlers with policies of their own share a store, but no answers.
func TestEachPolicyHasItsOwnAnswers(t *testing.T) {
	strict := policy
	strict.Limit = 1
	for name, generous := range map[string]guard.Policy{
		"limit": policy,
		"rule":  {Limit: 1, AtLimit: guard.ReplaceOldest, Interval: policy.Interval, TTL: policy.TTL},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(t *testing.T, s *counter, a, _ node) {
				a.check(guard.Admitted, claim(1), strict)
				start := claim(2)
				a.check(guard.Rejected, start, strict)
				a.check(guard.Admitted, start, generous)

				s.delay.Store(int64(time.Second))
				start.ID = claim(3).ID
				var asked sync.WaitGroup
				asked.Go(func() { a.check(guard.Rejected, start, strict) })
				time.Sleep(time.Millisecond)
				asked.Go(func() { a.check(guard.Admitted, start, generous) })
				asked.Wait()
			})
		})
	}
}

// Nor has who shares one a guard to be restored that its node gave it while the
// store was away.
func TestASharedGuardIsNotDoubledByAnOutage(t *testing.T) {
	run(t, func(t *testing.T, s *counter, a, _ node) {
		one := policy
		one.Limit, one.CountLocally = 1, true
		a.check(guard.Admitted, claim(1), one)
		a.check(guard.Refreshed, nameless(9), one)
		for n := range 60 {
			s.away.Store(n >= 5 && n < 30)
			time.Sleep(2 * time.Second)
			a.check(guard.Known, nameless(9), one)
			if n < 5 || n > 20 {
				a.check(guard.Known, claim(1), one)
			}
		}
		if guards, _ := s.List(t.Context(), "user"); len(guards) != 1 {
			t.Errorf("the user holds %+v", guards)
		}
	})
}

// Who says goodbye does not wait for the answer.
func TestAReleaseOutlivesItsRequest(t *testing.T) {
	run(t, func(t *testing.T, s *counter, a, _ node) {
		a.check(guard.Admitted, claim(1), policy)
		ctx, leave := context.WithCancel(t.Context())
		leave()
		if found, err := a.Release(ctx, "user", claim(1).ID, policy); !found || err != nil {
			t.Error(found, err)
		}
	})
}
