package lease

import (
	"testing"

	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/memstore"
)

// Whatever its lease is by, a request of a playback that is known allocates nothing.
func TestAHitAllocatesNothing(t *testing.T) {
	s, local := memstore.New(), memstore.New()
	defer s.Close()
	defer local.Close()
	k := New(s, local, nil)
	defer k.Close()
	own, shared, tried := stranger(1), stranger(1), stranger(2)
	shared.ID, shared.Named, shared.Nameless = stranger(3).ID, false, true
	delivered(k.Check(t.Context(), own, policy))
	delivered(k.Check(t.Context(), shared, policy))
	_, trial, _ := k.Check(t.Context(), tried, policy)
	defer trial.End(true)
	for what, c := range map[string]*guard.Claim{"its own": &own, "another's": &shared, "on trial": &tried} {
		if n := testing.AllocsPerRun(100, func() {
			_, trial, ok := k.Known(c, &policy)
			if !ok {
				t.Fatal("not known")
			}
			trial.End(false) // which is not the last
		}); n != 0 {
			t.Errorf("%s: %v allocations", what, n)
		}
	}
}

// A request of a playback that is known: most of all there are.
func BenchmarkHit(b *testing.B) {
	s := memstore.New()
	defer s.Close()
	k := New(s, s, nil)
	defer k.Close()
	claims := make([]guard.Claim, 1024)
	for n := range claims {
		claims[n] = stranger(n)
		if v, err := delivered(k.Check(b.Context(), claims[n], policy)); err != nil || v.Outcome != guard.Admitted {
			b.Fatal(v.Outcome, err)
		}
	}
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		if _, _, ok := k.Known(&claims[n%len(claims)], &policy); !ok {
			b.Fatal("not known")
		}
	}
}

// The same by Check, for callers that want a verdict.
func BenchmarkCheck(b *testing.B) {
	s := memstore.New()
	defer s.Close()
	k := New(s, s, nil)
	defer k.Close()
	c := stranger(1)
	b.ReportAllocs()
	for b.Loop() {
		if v, err := delivered(k.Check(b.Context(), c, policy)); err != nil || !v.Outcome.Pass() {
			b.Fatal(v.Outcome, err)
		}
	}
}
