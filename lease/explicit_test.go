package lease

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/memstore"
)

var one = guard.Policy{Limit: 1, Interval: policy.Interval, TTL: policy.TTL}

// refresh is PATCH /guards/{id}.
func (n node) refresh(want guard.Outcome, c guard.Claim) guard.Guard {
	n.t.Helper()
	v, err := n.Refresh(n.t.Context(), c.User, c.ID, one)
	if err != nil {
		n.t.Fatalf("refresh: %v", err)
	}
	if v.Outcome != want {
		n.t.Fatalf("refresh: %v, want %v", v.Outcome, want)
	}
	return v.Guard
}

// lose has the store lose a guard, as in a failover or a flush.
func (s *counter) lose(c guard.Claim) {
	s.Store.Release(context.Background(), c.User, c.ID, guard.Policy{})
}

// page is a playback that says itself when it starts.
func page(n int) guard.Claim {
	c := claim(n)
	c.Named, c.Anew, c.Device, c.Labels = false, true, "tv", guard.Labels("").With("screen", "hd")
	return c
}

func TestAnExplicitSignOfLifeBringsALostGuardBack(t *testing.T) {
	for name, call := range map[string]func(node){
		"PATCH":      func(n node) { n.refresh(guard.Refreshed, page(1)) },
		"POST again": func(n node) { n.acquire(guard.Refreshed, page(1)) },
		"CMCD": func(n node) {
			time.Sleep(one.Interval / 3)
			v, err := n.Keep(n.t.Context(), guard.Claim{User: "user", ID: page(1).ID, Device: "tv"}, one)
			if err != nil || v.Outcome != guard.Known {
				n.t.Error(v.Outcome, err)
			}
			time.Sleep(time.Second)
		},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(t *testing.T, s *counter, a, b node) {
				a.acquire(guard.Admitted, page(1))
				s.lose(page(1))
				other := page(2)
				other.Stream = "another"
				b.acquire(guard.Admitted, other)
				call(a)
				guards, _ := s.List(t.Context(), "user")
				if len(guards) != 2 || guards[1].ID != page(1).ID || guards[1].Stream != "movie" || guards[1].Device != "tv" || guards[1].Labels.Get("screen") != "hd" {
					t.Errorf("the user holds %+v", guards)
				}
				if got := a.refresh(guard.Refreshed, page(1)); got.Stream != "movie" {
					t.Errorf("the answer is %+v", got)
				}
			})
		})
	}
}

func (n node) acquire(want guard.Outcome, c guard.Claim) {
	n.t.Helper()
	if v, err := n.Acquire(n.t.Context(), c, one); err != nil || v.Outcome != want {
		n.t.Fatalf("acquire: %v, %v, want %v", v.Outcome, err, want)
	}
}

// What keeps itself is as good as admitted here: by PATCH, by CMCD, and by the
// media of a playback that only then PATCHes.
func TestASignOfLifeIsRemembered(t *testing.T) {
	for name, know := range map[string]func(node){
		"PATCH": func(n node) { n.refresh(guard.Refreshed, page(1)) },
		"CMCD": func(n node) {
			v, err := n.Keep(n.t.Context(), guard.Claim{User: "user", ID: page(1).ID}, one)
			if err != nil || v.Outcome != guard.Refreshed {
				n.t.Error(v.Outcome, err)
			}
		},
		"media": func(n node) { n.check(guard.Refreshed, page(1), one) },
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(t *testing.T, s *counter, a, b node) {
				a.acquire(guard.Admitted, page(1))
				know(b)
				b.check(guard.Known, claim(1), one)
				s.lose(page(1))
				b.refresh(guard.Refreshed, page(1))
			})
		})
	}
}

// What is not this user's, not known here, over or ended stays gone.
func TestWhatIsGoneIsNotBroughtBack(t *testing.T) {
	for name, test := range map[string]func(s *counter, a, b node){
		"never known": func(s *counter, a, b node) {
			s.lose(page(1))
			b.refresh(guard.Absent, page(1))
		},
		"another user's": func(s *counter, a, b node) {
			c := page(1)
			c.User = "mallory"
			a.refresh(guard.Absent, c)
			if guards, _ := s.List(context.Background(), "mallory"); len(guards) != 0 {
				a.t.Errorf("mallory holds %+v", guards)
			}
			a.check(guard.Known, claim(1), one)
		},
		"over": func(s *counter, a, b node) {
			time.Sleep(one.TTL)
			a.refresh(guard.Absent, page(1))
		},
		"released, and nobody said so": func(s *counter, a, b node) {
			s.mute.Store(true)
			b.Release(context.Background(), "user", page(1).ID, one)
			a.refresh(guard.Absent, page(1))
			a.check(guard.Released, claim(1), one) // which has no lease any more
		},
		"revoked, and nobody said so": func(s *counter, a, b node) {
			s.mute.Store(true)
			b.Revoke(context.Background(), "user", page(1).ID, one)
			a.refresh(guard.Revoked, page(1))
			a.check(guard.Revoked, claim(1), one)
		},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(t *testing.T, s *counter, a, b node) {
				a.acquire(guard.Admitted, page(1))
				time.Sleep(6 * time.Second)
				test(s, a, b)
			})
		})
	}
}

// A page that only PATCHes has its guard after an outage that was longer than
// ttl, from a store that has come back empty.
func TestAnExplicitViewerOutlivesAnOutage(t *testing.T) {
	run(t, func(t *testing.T, s *counter, a, b node) {
		a.acquire(guard.Admitted, page(1))
		s.away.Store(true)
		for range 20 {
			time.Sleep(20 * time.Second)
			if _, err := a.Refresh(t.Context(), "user", page(1).ID, one); !errors.Is(err, errAway) {
				t.Fatal(err)
			}
		}
		s.away.Store(false)
		b.acquire(guard.Admitted, page(2))
		a.refresh(guard.Refreshed, page(1))
	})
}

// What explicit calls leave in memory goes with their leases.
func TestNamesAreForgotten(t *testing.T) {
	run(t, func(t *testing.T, s *counter, a, b node) {
		a.acquire(guard.Admitted, page(1))
		b.acquire(guard.Refreshed, page(1))
		a.Release(t.Context(), "user", page(1).ID, one)
		time.Sleep(10 * time.Millisecond)
		a.acquire(guard.Admitted, page(2))
		if n, m := a.named.Size(), b.named.Size(); n != 1 || m != 0 {
			t.Errorf("%d and %d guards are remembered, want 1 and none", n, m)
		}
		time.Sleep(one.TTL + 2*sweepEvery)
		if n := a.named.Size(); n != 0 {
			t.Errorf("%d guards are remembered when they are over", n)
		}
	})
}

// A caller who has no time is not a store that is away.
func TestAShortDeadlineIsNoAbsence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, local := &counter{Store: memstore.New()}, memstore.New()
		defer s.Store.Close()
		defer local.Close()
		k := node{New(s, local, func(err error) { t.Errorf("the store is away: %v", err) }), t}
		defer k.Close()
		p := one
		p.CountLocally = true
		k.check(guard.Admitted, claim(1), p)
		s.heeds.Store(true)
		s.delay.Store(int64(350 * time.Millisecond))
		short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		for _, call := range []func() error{
			func() error { _, err := delivered(k.Check(short, claim(2), p)); return err },
			func() error { _, err := k.Acquire(short, claim(3), p); return err },
		} {
			if err := call(); !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
		}
		if v, err := k.Refresh(short, "user", claim(1).ID, p); err != nil || v.Outcome != guard.Refreshed {
			t.Error(v.Outcome, err)
		}
		time.Sleep(time.Second)
		k.check(guard.Rejected, claim(2), p)
		if guards, _ := local.List(t.Context(), "user"); len(guards) != 0 {
			t.Errorf("this node counts %+v by itself", guards)
		}
	})
}
