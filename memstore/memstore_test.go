package memstore

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/guard/guardtest"
)

func TestStore(t *testing.T) {
	guardtest.Run(t, func(t *testing.T, test func(*testing.T, guardtest.Harness)) {
		synctest.Test(t, func(t *testing.T) {
			s := New()
			defer s.Close()
			test(t, guardtest.Harness{Store: s, Advance: time.Sleep, Size: s.Size})
		})
	})
}

var policy = guard.Policy{Limit: 1, Interval: 60 * time.Second, TTL: 90 * time.Second}

func claim(user string) guard.Claim {
	return guard.Claim{User: user, ID: guard.DeriveID(user, "", "playback")}
}

func TestFullStoreRefusesNewUsersAndKeepsTheOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(2)
		defer s.Close()
		for _, user := range []string{"a", "b"} {
			if _, err := s.Acquire(t.Context(), claim(user), policy); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := s.Acquire(t.Context(), claim("c"), policy); !errors.Is(err, ErrFull) {
			t.Fatalf("third user: %v, want ErrFull", err)
		}
		if v, err := s.Acquire(t.Context(), claim("a"), policy); err != nil || v.Outcome != guard.Refreshed {
			t.Fatalf("first user again: %v, %v", v.Outcome, err)
		}
		time.Sleep(policy.TTL + sweepEvery)
		if _, err := s.Acquire(t.Context(), claim("c"), policy); err != nil {
			t.Fatalf("after the sweep: %v", err)
		}
	})
}

func TestSweepForgetsUsersWhoseGuardsAreGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New()
		defer s.Close()
		for n := range 1000 {
			if _, err := s.Acquire(t.Context(), claim(fmt.Sprint(n)), policy); err != nil {
				t.Fatal(err)
			}
		}
		if n := s.users.Load(); n != 1000 {
			t.Fatalf("%d users, want 1000", n)
		}
		time.Sleep(policy.TTL + sweepEvery)
		if n := s.users.Load(); n != 0 {
			t.Fatalf("%d users after their guards are gone, want none", n)
		}
	})
}

func BenchmarkAcquire(b *testing.B) {
	s := New()
	defer s.Close()
	claims := make([]guard.Claim, 1<<16)
	for i := range claims {
		claims[i] = claim(fmt.Sprint(i * 7919))
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := s.Acquire(context.Background(), claims[i*40503%len(claims)], policy); err != nil {
			b.Fatal(err)
		}
	}
}
