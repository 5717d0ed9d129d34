package redisstore

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/redisstore/redistest"
)

// A guard costs at most this much of Redis' memory, with a 24-character stream
// and 1.55 guards a user.
const maxBytesPerGuard = 200

func TestMemoryPerGuard(t *testing.T) {
	if got := bytesPerGuard(t, 50_000); got > maxBytesPerGuard {
		t.Errorf("%.0f bytes a guard, want at most %d", got, maxBytesPerGuard)
	}
}

func BenchmarkMemoryPerGuard(b *testing.B) {
	for b.Loop() {
		b.ReportMetric(bytesPerGuard(b, 1_000_000), "B/guard")
	}
}

func bytesPerGuard(tb testing.TB, guards int) float64 {
	tb.Helper()
	server := redistest.Start(tb)
	s := open(tb, Options{Addresses: []string{server.Addr}})
	ctx := context.Background()
	long := policy // nothing may expire meanwhile
	long.Interval, long.TTL = 1000*policy.Interval, 1000*policy.TTL
	if err := scripts.acquire.Load(ctx, s.client).Err(); err != nil {
		tb.Fatal(err)
	}
	before := usedMemory(tb, s)
	pipe := s.client.Pipeline()
	for n := range guards {
		user := fmt.Sprintf("user-%011d", n*100/155)
		id := guard.DeriveID(user, "", strconv.Itoa(n))
		claim := guard.Claim{User: user, ID: id, Stream: fmt.Sprintf("stream-%017d", n)}
		scripts.acquire.EvalSha(ctx, pipe, []string{s.key(user)}, s.acquireArgs(ctx, claim, long)...)
		if pipe.Len() == 1000 || n == guards-1 {
			if _, err := pipe.Exec(ctx); err != nil {
				tb.Fatal(err)
			}
		}
	}
	return float64(usedMemory(tb, s)-before) / float64(guards)
}

var usedMemoryLine = regexp.MustCompile(`used_memory:(\d+)`)

func usedMemory(tb testing.TB, s *Store) int {
	tb.Helper()
	info, err := s.client.(*redis.Client).Info(context.Background(), "memory").Result()
	if err != nil {
		tb.Fatal(err)
	}
	n, err := strconv.Atoi(usedMemoryLine.FindStringSubmatch(info)[1])
	if err != nil {
		tb.Fatal(err)
	}
	return n
}
