package lease_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/lease"
	"github.com/streamguard/streamguard/memstore"
	"github.com/streamguard/streamguard/redisstore"
	"github.com/streamguard/streamguard/redisstore/redistest"
)

// delivered is what was said to a request for media that is answered with them.
func delivered(v guard.Verdict, trial *lease.Trial, err error) (guard.Verdict, error) {
	trial.End(true)
	return v, err
}

// Ten thousand playbacks of a thousand users come and go on two nodes, while
// a third looks: no user ever holds more guards than the limit.
func TestNeverOverTheLimitOnTwoNodes(t *testing.T) {
	server := redistest.Start(t)
	options := redisstore.Options{Addresses: []string{server.Addr}, Timeout: 20 * time.Second}
	policy := guard.Policy{Limit: 3, Interval: 3 * time.Second, TTL: 6 * time.Second}
	var nodes []*lease.Keeper
	for range 2 {
		s, err := redisstore.Open(options)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		local := memstore.New()
		t.Cleanup(func() { local.Close() })
		k := lease.New(s, local, nil)
		defer k.Close()
		nodes = append(nodes, k)
	}
	const users, playbacks = 1000, 10
	ctx, cancel := context.WithCancel(t.Context())
	var players, looking sync.WaitGroup
	looking.Go(func() {
		for ctx.Err() == nil {
			user := fmt.Sprint(rand.IntN(users))
			guards, err := nodes[0].List(context.Background(), user)
			if err != nil {
				t.Errorf("list: %v", err)
				return
			}
			if len(guards) > policy.Limit {
				t.Errorf("user %s holds %d guards", user, len(guards))
				return
			}
		}
	})
	for worker := range 64 {
		players.Go(func() {
			for step := range 2000 {
				n := (worker*2000+step)*7919%(users*playbacks) + rand.IntN(3)
				user := fmt.Sprint(n % users)
				c := guard.Claim{User: user, ID: guard.DeriveID(user, "", fmt.Sprint(n/users)), Stream: "s", Named: true}
				node := nodes[rand.IntN(2)]
				if _, err := delivered(node.Check(context.Background(), c, policy)); err != nil {
					t.Errorf("check: %v", err)
					return
				}
				if rand.IntN(20) == 0 {
					if _, err := node.Release(context.Background(), c.User, c.ID, policy); err != nil {
						t.Errorf("release: %v", err)
						return
					}
				}
			}
		})
	}
	players.Wait()
	cancel()
	looking.Wait()
}

// The clock of Redis jumps: who plays is never refused and is all there after a
// refresh; who has left is gone after ttl, wherever the clock is by then.
func TestClockOfRedisJumps(t *testing.T) {
	for name, jump := range map[string]time.Duration{"an hour forward": time.Hour, "an hour back": -time.Hour} {
		t.Run(name, func(t *testing.T) {
			server := redistest.StartWithClock(t)
			s, err := redisstore.Open(redisstore.Options{Addresses: []string{server.Addr}, Timeout: 20 * time.Second})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			local := memstore.New()
			t.Cleanup(func() { local.Close() })
			k := lease.New(s, local, nil)
			defer k.Close()
			p := guard.Policy{Limit: 3, Interval: 3 * time.Second, TTL: time.Minute}
			check := func(playback string) guard.Outcome {
				t.Helper()
				c := guard.Claim{User: "u", ID: guard.DeriveID("u", "", playback), Stream: "s", Named: true}
				v, err := delivered(k.Check(t.Context(), c, p))
				if err != nil {
					t.Fatal(err)
				}
				return v.Outcome
			}
			for _, viewer := range []string{"1", "2", "left"} {
				if got := check(viewer); got != guard.Admitted {
					t.Fatal(got)
				}
			}
			server.Advance(t, jump)
			// Both viewers have been refreshed since the jump, and none besides is left.
			played := func() bool {
				for _, viewer := range []string{"1", "2"} {
					if got := check(viewer); !got.Pass() {
						t.Fatalf("viewer %s is %v", viewer, got)
					}
				}
				guards, err := s.List(t.Context(), "u")
				if err != nil {
					t.Fatal(err)
				}
				return len(guards) == 2
			}
			deadline := time.Now().Add(time.Minute)
			for !played() {
				if time.Now().After(deadline) {
					t.Fatal("the user does not hold the two guards that are played")
				}
				server.Advance(t, 300*time.Millisecond)
				time.Sleep(10 * time.Millisecond)
			}
			if got := check("third"); got != guard.Admitted {
				t.Errorf("a third: %v", got)
			}
			if got := check("fourth"); got != guard.Rejected {
				t.Errorf("a fourth: %v", got)
			}
		})
	}
}
