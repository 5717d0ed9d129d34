package memstore

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
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
		s := newStore(2, time.Now)
		go s.sweep()
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

// What is kept of a claim does not hold on to the request that it was part of.
func TestGuardsHoldOnToTheirOwnNamesOnly(t *testing.T) {
	s := New()
	defer s.Close()
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	const users, length = 500, 64 << 10
	before := heap()
	p := policy
	p.AtLimit = guard.ReplaceOldest
	for n := range users {
		for _, playback := range []string{"replaced", "kept", "kept"} {
			c := claim(fmt.Sprintf("%0*d", length, n)[length-6:])
			c.ID = guard.DeriveID(c.User, "", playback)
			c.Stream, c.Device = strings.Repeat("x", length)[:5], strings.Repeat("x", length)[:5]
			if v, err := s.Acquire(t.Context(), c, p); err != nil || !v.Outcome.Pass() {
				t.Fatal(v.Outcome, err)
			}
		}
	}
	if grown := heap() - before; grown > users*length/4 {
		t.Errorf("grown by %d bytes for each user", grown/users)
	}
	runtime.KeepAlive(s)
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
