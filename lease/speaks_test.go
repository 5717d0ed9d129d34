package lease

import (
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/memstore"
)

// stands is a manifest that stands in for media without a name.
func stands(n int) guard.Claim {
	c := claim(n)
	c.Named = false
	return c
}

// When the guard has ended that served it, a playback without a name asks again.
func TestWhoSpeaksForAGuardEndsWithIt(t *testing.T) {
	for name, end := range map[string]func(*counter, node, guard.Claim){
		"revoked": func(_ *counter, b node, c guard.Claim) { b.Revoke(b.t.Context(), "user", c.ID, one) },
		"replaced": func(_ *counter, b node, _ guard.Claim) {
			b.check(guard.Admitted, elsewhere(2), one.With(guard.ReplaceOldest))
		},
	} {
		for _, heard := range []bool{true, false} {
			run(t, func(t *testing.T, s *counter, a, b node) {
				a.check(guard.Admitted, claim(1), one)
				a.check(guard.Refreshed, nameless(9), one)
				time.Sleep(6 * time.Second)
				a.check(guard.Known, nameless(9), one)
				s.mute.Store(!heard)
				end(s, b, claim(1))
				time.Sleep(10 * time.Millisecond)
				want := map[string]guard.Outcome{"revoked": guard.Revoked, "replaced": guard.Replaced}[name]
				if !heard {
					time.Sleep(one.Interval / 3)
					a.check(guard.Known, nameless(9), one)
					time.Sleep(2 * linger)
				}
				a.check(want, nameless(9), one)
			})
		}
	}
}

// elsewhere is a playback of another stream.
func elsewhere(n int) guard.Claim {
	c := claim(n)
	c.Stream = "another"
	return c
}

// After the store has lost it, the guard comes back once, under its own id, by
// whoever comes first, though another has taken the slot.
func TestALostGuardIsRestoredByWhoSpeaksForIt(t *testing.T) {
	for name, begins := range map[string]guard.Claim{"media with a name": claim(1), "a manifest": stands(1)} {
		for _, first := range []guard.Claim{claim(1), nameless(9)} {
			t.Run(name, func(t *testing.T) {
				run(t, func(t *testing.T, s *counter, a, b node) {
					a.check(guard.Admitted, begins, one)
					b.check(guard.Refreshed, nameless(9), one)
					a.check(guard.Refreshed, nameless(9), one)
					time.Sleep(one.Interval / 3)
					s.lose(claim(1))
					s.Store.Acquire(t.Context(), elsewhere(2), one)
					a.check(guard.Known, first, one)
					time.Sleep(2 * linger)
					s.holds(t, 1, 2)
					a.check(guard.Known, nameless(9), one)
					b.check(guard.Known, nameless(9), one)
					a.check(guard.Known, claim(1), one)
					time.Sleep(2 * linger)
					s.holds(t, 1, 2)
				})
			})
		}
	}
}

// That a request without a name was served lately does not bring back a guard that
// is over: its slot may be another's.
func TestWhoSpeaksForAGuardDoesNotOutliveIt(t *testing.T) {
	run(t, func(t *testing.T, s *counter, a, b node) {
		a.check(guard.Admitted, claim(1), one) // whose media do not come again
		for range 44 {
			a.check(guard.Refreshed, nameless(9), one)
			a.leases.delete(nameless(9).ID) // as if each came by another node
			time.Sleep(2 * time.Second)
		}
		time.Sleep(time.Second)
		a.check(guard.Refreshed, nameless(9), one)
		time.Sleep(time.Second)
		b.check(guard.Admitted, elsewhere(2), one)
		for range 10 {
			a.check(guard.Rejected, nameless(9), one)
			time.Sleep(time.Second)
		}
		s.holds(t, 2)
	})
}

// Who speaks for another's guard costs no more than who has one.
func TestWhoSpeaksForAGuardAsksAsSeldom(t *testing.T) {
	run(t, func(t *testing.T, s *counter, a, _ node) {
		a.check(guard.Admitted, stands(1), one)
		a.check(guard.Refreshed, nameless(9), one)
		before := s.acquires.Load()
		for range 10 * 60 / 4 {
			time.Sleep(4 * time.Second)
			a.check(guard.Known, nameless(9), one)
		}
		if n := float64(s.acquires.Load()-before) / 10; n > 3.2 {
			t.Errorf("%.2f calls a minute", n)
		}
		s.holds(t, 1)
		time.Sleep(one.TTL + 2*sweepEvery)
		if n := a.speaks.Size(); n != 0 {
			t.Errorf("%d are remembered when all is over", n)
		}
	})
}

// Beyond the bound who speaks for another's guard asks each time, and is answered
// the same.
func TestWhoSpeaksForGuardsIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, local := memstore.New(), memstore.New()
		defer s.Close()
		defer local.Close()
		k := node{New(s, local, nil), t}
		defer k.Close()
		before := heap()
		for n := range maxSpeaks {
			k.serve(testID(n), testID(maxSpeaks+n), lease{ttl: 1})
		}
		if each := (heap() - before) / maxSpeaks; each > 160 {
			t.Errorf("each takes %d bytes", each)
		} else {
			t.Logf("each takes %d bytes", each)
		}
		k.check(guard.Admitted, stands(1), one)
		for range 10 {
			k.check(guard.Refreshed, nameless(9), one)
		}
		time.Sleep(2 * sweepEvery)
		k.check(guard.Refreshed, nameless(9), one)
		k.check(guard.Known, nameless(9), one)
	})
}

func TestALeaseTakes32Bytes(t *testing.T) {
	if n := unsafe.Sizeof(slot{}); n != 32 {
		t.Errorf("%d bytes", n)
	}
}
