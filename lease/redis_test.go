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
				c := guard.Claim{User: user, ID: guard.DeriveID(user, "", fmt.Sprint(n/users)), Stream: "s", Intent: guard.Continue}
				node := nodes[rand.IntN(2)]
				if _, err := node.Check(context.Background(), c, policy); err != nil {
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
