package lease

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/memstore"
)

// Whoever comes back when he was told to is judged anew, and is not refused by
// what this node remembers.
func TestADenialEndsWithTheFirstGuardInItsWay(t *testing.T) {
	for _, left := range []time.Duration{300 * time.Millisecond, time.Second, 1998 * time.Millisecond} {
		run(t, func(t *testing.T, s *counter, a, b node) {
			b.check(guard.Admitted, claim(1), one)
			time.Sleep(one.TTL - left)
			v := a.check(guard.Rejected, claim(2), one)
			if v.FreeIn != left {
				t.Fatalf("free in %v, want %v", v.FreeIn, left)
			}
			time.Sleep(left / 2)
			v = a.check(guard.Rejected, claim(2), one)
			if !v.Repeated || v.FreeIn <= 0 || v.FreeIn > left-left/2 {
				t.Errorf("free in %v, repeated %v", v.FreeIn, v.Repeated)
			}
			time.Sleep(v.FreeIn)
			a.check(guard.Admitted, claim(2), one)
		})
	}
}

// A denial is of what was judged, and of nothing that differs in any of it.
func TestADenialIsOfAllThatWasJudged(t *testing.T) {
	for name, change := range map[string]func(*guard.Claim, *guard.Policy){
		"nothing": func(*guard.Claim, *guard.Policy) {},
		"stream":  func(c *guard.Claim, _ *guard.Policy) { c.Stream = "another" },
		"device":  func(c *guard.Claim, _ *guard.Policy) { c.Device = "tv" },
		"labels":  func(c *guard.Claim, _ *guard.Policy) { c.Labels = c.Labels.With("screen", "hd") },
		"client":  func(c *guard.Claim, _ *guard.Policy) { c.Client = 7 },
		"limit":   func(_ *guard.Claim, p *guard.Policy) { p.Limit = 0 },
		"rules":   func(_ *guard.Claim, p *guard.Policy) { p.Rules = []guard.Rule{{Per: "device", Limit: 1}} },
		"times":   func(_ *guard.Claim, p *guard.Policy) { p.TTL++ },
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(t *testing.T, s *counter, a, b node) {
				other := claim(1)
				other.Stream = "in the way"
				b.check(guard.Admitted, other, one)
				c, p := claim(2), one
				a.check(guard.Rejected, c, p)
				change(&c, &p)
				if v := a.check(guard.Rejected, c, p); v.Repeated != (name == "nothing") || v.Limit != p.Limit {
					t.Errorf("%+v", v)
				}
			})
		})
	}
}

// A revocation is of the playback, whatever it asks.
func TestARevocationIsRememberedForAllThatIsAsked(t *testing.T) {
	run(t, func(t *testing.T, s *counter, a, b node) {
		b.check(guard.Admitted, claim(1), one)
		b.Revoke(t.Context(), "user", claim(1).ID, one)
		time.Sleep(10 * time.Millisecond)
		a.check(guard.Revoked, claim(1), one)
		c, p := claim(1), policy
		c.Anew, c.Stream = true, "another"
		if v := a.check(guard.Revoked, c, p); !v.Repeated || v.Limit != p.Limit {
			t.Errorf("%+v", v)
		}
		time.Sleep(denialTime)
		if v := a.check(guard.Revoked, c, p); v.Repeated {
			t.Error("the store is not asked again")
		}
	})
}

// What this node's own explicit call admits is no longer refused from memory;
// what another node admits for no longer than the denial lasts.
func TestADenialDoesNotOutliveAnAdmission(t *testing.T) {
	run(t, func(t *testing.T, s *counter, a, b node) {
		c := claim(2)
		for _, by := range []node{a, b} {
			s.mute.Store(true)
			b.check(guard.Admitted, claim(1), one)
			a.check(guard.Rejected, c, one)
			s.lose(claim(1))
			b.forget(claim(1).ID)
			by.acquire(guard.Admitted, c)
			if by == b {
				a.check(guard.Rejected, c, one)
				time.Sleep(denialTime)
				a.check(guard.Refreshed, c, one)
			}
			a.check(guard.Known, c, one)
			s.lose(c)
			a.forget(c.ID)
			b.forget(c.ID)
			time.Sleep(time.Second)
		}
	})
}

// Requests that come together share an answer only if they ask the same.
func TestAnAnswerIsSharedByThoseWhoAskTheSame(t *testing.T) {
	run(t, func(t *testing.T, s *counter, a, b node) {
		p := policy
		p.Rules = []guard.Rule{{Per: "screen", Limit: 1}}
		hd, sd := claim(2), claim(2)
		hd.Labels, sd.Labels = guard.Labels("").With("screen", "hd"), guard.Labels("").With("screen", "sd")
		other := hd
		other.ID = claim(1).ID
		b.check(guard.Admitted, other, p)
		s.delay.Store(int64(time.Second))
		refused := make(chan bool)
		go func() {
			a.check(guard.Rejected, hd, p)
			close(refused)
		}()
		time.Sleep(time.Millisecond)
		a.check(guard.Admitted, sd, p)
		<-refused
	})
}

// full is a store that keeps nothing more of a user.
type full struct{ *counter }

func (s full) Acquire(ctx context.Context, c guard.Claim, p guard.Policy) (guard.Verdict, error) {
	s.acquires.Add(1)
	return guard.Verdict{Outcome: guard.Uncounted, Held: guard.MaxObserved, Limit: p.Limit}, nil
}

// Whose guards are as many as a store keeps passes, and does not ask it with each segment.
func TestWhoIsUncountedDoesNotAskAgainAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := full{&counter{Store: memstore.New()}}
		defer s.Store.Close()
		k := node{New(s, s.Store, nil), t}
		defer k.Close()
		for n := range 20 {
			v := k.check(guard.Uncounted, claim(1), policy)
			if want := n%10 > 0; v.Repeated != want || v.FreeIn != 0 {
				t.Errorf("request %d: %+v", n, v)
			}
			time.Sleep(denialTime / 10)
		}
		if n := s.acquires.Load(); n != 2 {
			t.Errorf("%d calls in 4 s, want 2", n)
		}
		if leases, _ := k.Size(); leases != 0 {
			t.Errorf("%d leases", leases)
		}
	})
}
