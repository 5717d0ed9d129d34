package lease

import (
	"testing"

	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/memstore"
)

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
