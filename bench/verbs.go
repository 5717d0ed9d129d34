package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/streamguard/streamguard/bench/viewer"
	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/redisstore"
)

// verbs measures what one call of each verb takes, one at a time, for random
// users of a Redis with few and with many guards.
func verbs(l *lab) ([]row, error) {
	sizes := []int{1000, 100_000, 1_000_000}
	stores := make([]*redisstore.Store, len(sizes))
	for i, guards := range sizes {
		redis, err := l.redis()
		if err != nil {
			return nil, err
		}
		if err := fill(l.ctx, redis, nil, guards); err != nil {
			return nil, err
		}
		if stores[i], err = redisstore.Open(redisstore.Options{Addresses: []string{redis.addr}, Timeout: 10 * time.Second}); err != nil {
			return nil, err
		}
		defer stores[i].Close()
	}
	names := []string{"start", "refresh", "list", "release"}
	var table []row
	for _, verb := range names {
		for _, guards := range sizes[1:] {
			table = append(table, row{what: fmt.Sprintf("one %s, %dk guards in Redis", verb, guards/1000), partner: "1k guards", unit: "µs"})
		}
	}
	for range *pairs {
		took, err := waits(l.ctx, stores, sizes)
		if err != nil {
			return nil, err
		}
		for v := range names {
			table[2*v].pair(took[1][v], took[0][v])
			table[2*v+1].pair(took[2][v], took[0][v])
		}
	}
	return table, nil
}

// waits is the median wait for each verb in microseconds, of each store. They
// take turns in random order, so that what else the machine does is the same for all.
func waits(ctx context.Context, stores []*redisstore.Store, guards []int) ([][4]float64, error) {
	policy := guard.Policy{Limit: 10, Interval: 12 * time.Hour, TTL: 24 * time.Hour}
	waits := make([][4][]float64, len(stores))
	for end := time.Now().Add(duration()); time.Now().Before(end); {
		for _, i := range rand.Perm(len(stores)) {
			s := stores[i]
			user := userOf(rand.IntN(guards[i]))
			c := guard.Claim{User: user, ID: guard.NewID(user, ""), Stream: "stream-00000000000000000"}
			for v, call := range []func() error{
				func() error { _, err := s.Acquire(ctx, c, policy); return err },
				func() error { _, err := s.Refresh(ctx, user, c.ID, policy); return err },
				func() error { _, err := s.List(ctx, user); return err },
				func() error { _, err := s.Release(ctx, user, c.ID, guard.Policy{TTL: time.Millisecond}); return err },
			} {
				before := time.Now()
				if err := call(); err != nil {
					return nil, err
				}
				waits[i][v] = append(waits[i][v], float64(time.Since(before))/float64(time.Microsecond))
			}
		}
	}
	medians := make([][4]float64, len(stores))
	for i := range waits {
		for v := range waits[i] {
			medians[i][v] = median(waits[i][v])
		}
	}
	return medians, nil
}

// userOf is the user of guard n of those that fill puts into a Redis.
func userOf(n int) string {
	return string(viewer.AppendUser(nil, viewer.PerUser*uint64(users+n*100/155)))
}
