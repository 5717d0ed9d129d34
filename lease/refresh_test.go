package lease

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/memstore"
)

// patient is a store whose calls may take long, and says so.
type patient struct {
	*counter
	timeout time.Duration
}

func (s patient) Timeout() time.Duration { return s.timeout }

// A refresh that is late, but within what the store's calls may take, finds its
// slot another's and leaves it to that.
func TestALateRefreshDoesNotPassTheLimit(t *testing.T) {
	for _, c := range []struct{ ttl, timeout, before, takes time.Duration }{
		{90 * time.Second, 10 * time.Second, 1400 * time.Millisecond, 3 * time.Second},
		{90 * time.Second, 10 * time.Second, 9900 * time.Millisecond, 9900 * time.Millisecond},
		{90 * time.Second, 500 * time.Millisecond, 900 * time.Millisecond, 950 * time.Millisecond},
		{12 * time.Second, 10 * time.Second, 5900 * time.Millisecond, 9 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			s, local := patient{&counter{Store: memstore.New()}, c.timeout}, memstore.New()
			defer s.Store.Close()
			defer local.Close()
			k := node{New(s, local, nil), t}
			defer k.Close()
			p := one
			p.TTL, p.Interval = c.ttl, c.ttl*2/3
			k.check(guard.Admitted, claim(1), p)
			time.Sleep(p.TTL - c.before)
			s.delay.Store(int64(c.takes))
			k.check(guard.Known, claim(1), p)
			time.Sleep(c.before)
			if v, err := s.Store.Acquire(t.Context(), claim(2), p); err != nil || v.Outcome != guard.Admitted {
				t.Fatal(v.Outcome, err)
			}
			time.Sleep(c.takes)
			if guards, _ := s.List(t.Context(), "user"); len(guards) != 1 || guards[0].ID != claim(2).ID {
				t.Errorf("%+v: the user holds %+v", c, guards)
			}
		})
	}
}

// However slow the store may be, a viewer's first refresh restores what it lost.
func TestASlowStoreRestores(t *testing.T) {
	for _, timeout := range []time.Duration{0, time.Second, 10 * time.Second, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			s, local := patient{&counter{Store: memstore.New()}, timeout}, memstore.New()
			defer s.Store.Close()
			defer local.Close()
			k := node{New(s, local, nil), t}
			defer k.Close()
			for n, p := range []guard.Policy{
				{Limit: 1, Interval: 60 * time.Second, TTL: 90 * time.Second},
				{Limit: 1, Interval: 3 * time.Second, TTL: 4 * time.Second},
				{Limit: 1, Interval: 3 * time.Second, TTL: 4 * time.Second, Reclaim: guard.ReclaimLapsed},
			} {
				c := stranger(n)
				k.check(guard.Admitted, c, p)
				s.lose(c)
				other := c
				other.ID = guard.DeriveID(c.User, "", "another")
				k.check(guard.Admitted, other, p)
				time.Sleep(p.Interval / 3)
				k.check(guard.Known, c, p)
				time.Sleep(2 * linger)
				if guards, _ := s.List(t.Context(), c.User); len(guards) != 2 {
					t.Errorf("timeout %v, %+v: the user holds %+v", timeout, p, guards)
				}
			}
		})
	}
}
