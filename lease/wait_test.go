package lease

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/streamguard/streamguard/guard"
)

// equal is a start of one of several equal clients, on one stream.
func equal(n int) guard.Claim {
	c := claim(n)
	c.Client, c.Patience = 7, 10*time.Second
	return c
}

func (n node) doubted(c guard.Claim) guard.Verdict {
	n.t.Helper()
	return n.check(guard.Doubted, c, one)
}

// Where the guard in its way may be its own viewer's, a start waits until that is
// known; the guard's playback is asked meanwhile, on whatever node it plays.
func TestADoubtIsAnsweredByWhoIsWatching(t *testing.T) {
	run(t, func(t *testing.T, s *counter, a, b node) {
		b.check(guard.Admitted, equal(1), one)
		time.Sleep(time.Second)
		v := a.doubted(equal(2))
		if v.FreeIn != 10*time.Second || len(v.Doubted) != 1 {
			t.Fatalf("%+v", v)
		}
		c := equal(2)
		news, leave, ok := a.Wait(&c, &v)
		if !ok {
			t.Fatal("it may not wait")
		}
		defer leave()
		heard := news()
		time.Sleep(4 * time.Second)
		select {
		case <-heard:
			t.Error("there is news already")
		default:
		}
		if v := b.check(guard.Refreshed, equal(1), one); !v.Answered {
			t.Error("the doubt is not answered")
		}
		<-heard
		c.Waited = true
		a.check(guard.Rejected, c, one)
		time.Sleep(10 * time.Millisecond)
		b.check(guard.Refreshed, equal(1), one) // it has heard the news itself
		b.check(guard.Known, equal(1), one)
	})
}

func TestADoubtedGuardThatNobodyAsksForIsTaken(t *testing.T) {
	run(t, func(t *testing.T, s *counter, a, b node) {
		b.check(guard.Admitted, equal(1), one)
		c := equal(2)
		v := a.doubted(c)
		c.Waited = true
		time.Sleep(v.FreeIn - time.Millisecond)
		a.doubted(c)
		time.Sleep(time.Millisecond)
		a.check(guard.Admitted, c, one)
		b.check(guard.Replaced, equal(1), one)
	})
}

// As many starts wait as are promised, of one user as many as may play; all
// requests of one playback wait as one.
func TestWhoWaitsIsBounded(t *testing.T) {
	run(t, func(t *testing.T, s *counter, a, _ node) {
		v := guard.Verdict{Outcome: guard.Doubted, Limit: 2, InTheWay: []guard.Guard{{ID: claim(0).ID, Client: 7}, {ID: claim(1).ID, Client: 8}}}
		var leaves []func()
		wait := func(want bool, user string, n int) {
			t.Helper()
			c := guard.Claim{User: user, ID: guard.DeriveID(user, "", fmt.Sprint(n)), Client: 7}
			news, leave, ok := a.Wait(&c, &v)
			if ok != want {
				t.Fatalf("%s's start %d may wait: %v", user, n, ok)
			}
			if ok {
				leaves = append(leaves, leave)
				heard := news()
				a.waiting.tell(claim(2).ID) // which is not in its way
				select {
				case <-heard:
					t.Error("there is news of what it does not wait for")
				default:
				}
				a.waiting.tell(claim(1).ID) // another client's
				select {
				case <-heard:
				default:
					t.Error("there is no news of what it waits for")
				}
			}
		}
		wait(true, "user", 1)
		wait(true, "user", 1)
		wait(true, "user", 2)
		wait(false, "user", 3)
		wait(true, "user", 2)
		for n := range MaxWaiting - 2 {
			wait(true, fmt.Sprint("other ", n), 1)
		}
		wait(false, "one more", 1)
		for _, leave := range leaves[:2] {
			leave()
		}
		wait(true, "user", 3)
		wait(false, "one more", 1)
		for _, leave := range leaves[2:] {
			leave()
		}
		if w := a.waiting; len(w.starts)+len(w.users)+len(w.guards) > 0 {
			t.Errorf("%v are left", w)
		}
	})
}

// All who wait for the same guard hear of it, each time.
func TestNewsWakeAllWhoWaitForThem(t *testing.T) {
	run(t, func(t *testing.T, s *counter, a, b node) {
		b.check(guard.Admitted, equal(1), one)
		two := one
		two.Limit = 2
		b.check(guard.Admitted, equal(2), two)
		for n := range 2 {
			c := equal(3 + n)
			v := a.check(guard.Doubted, c, two)
			news, leave, ok := a.Wait(&c, &v)
			if !ok {
				t.Fatal("it may not wait")
			}
			defer leave()
			for range 3 {
				heard := news()
				go b.forget(claim(9).ID)
				go a.forget(equal(1 + n).ID)
				synctest.Wait()
				select {
				case <-heard:
				default:
					t.Error("it has not heard")
				}
			}
		}
	})
}
