package main

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"runtime"
	"syscall"
	"time"

	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/lease"
)

// Table says what the leases cost.
type Table struct {
	Bytes []float64 // of heap for each lease
	// The longest that any of millions of requests for random leases waited, in
	// milliseconds: with a thousand leases; while all are swept; while a sweep
	// deletes all but a thousand.
	Few, Swept, Deleted []float64
}

var (
	forever = guard.Policy{Limit: 3, Interval: time.Hour, TTL: 2 * time.Hour}
	brief   = guard.Policy{Limit: 3, Interval: time.Second, TTL: 2 * time.Second}
)

const (
	few   = 1000
	sweep = 13 * time.Second // a keeper sweeps all its leases in ten
)

func table() (any, error) {
	var t Table
	for range min(*pairs, 3) {
		before := heap()
		k, start := lease.New(willing{}, willing{}, func(error) {}), time.Now()
		if err := fill(k, 0, *leases, forever); err != nil {
			return nil, err
		}
		t.Bytes = append(t.Bytes, float64(heap()-before)/float64(*leases))
		t.Swept = append(t.Swept, longest(k, *leases, start.Add(sweep)))
		k.Close()

		k, start = lease.New(willing{}, willing{}, func(error) {}), time.Now()
		if err := errors.Join(fill(k, 0, few, forever), fill(k, few, *leases, brief)); err != nil {
			return nil, err
		}
		heap()
		t.Deleted = append(t.Deleted, longest(k, few, start.Add(sweep)))
		k.Close()

		k, start = lease.New(willing{}, willing{}, func(error) {}), time.Now()
		if err := fill(k, 0, few, forever); err != nil {
			return nil, err
		}
		t.Few = append(t.Few, longest(k, few, start.Add(sweep)))
		k.Close()
	}
	return t, nil
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func fill(k *lease.Keeper, from, to int, p guard.Policy) error {
	for n := from; n < to; n++ {
		_, trial, err := k.Check(context.Background(), claim(uint64(n)), p)
		if err != nil {
			return err
		}
		trial.End(true)
	}
	return nil
}

// claim makes ids that are as random as the real ones and cost nothing.
func claim(n uint64) guard.Claim {
	c := guard.Claim{User: "user", Stream: "vod/movie", Named: true}
	rng := rand.NewPCG(n, n)
	binary.NativeEndian.PutUint64(c.ID[:], rng.Uint64())
	binary.NativeEndian.PutUint64(c.ID[8:], rng.Uint64())
	return c
}

// longest asks for random ones of the first n leases, one after the other, and
// returns the longest wait in milliseconds. Waits in which the kernel gave the
// processor to another thread are left out: they say how busy the machine is.
func longest(k *lease.Keeper, n int, end time.Time) float64 {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var most time.Duration
	ctx, taken := context.Background(), involuntarySwitches()
	for i := 0; ; i++ {
		if i%1024 == 0 {
			runtime.Gosched() // of itself, lest Go interrupts a request for it
		}
		c := claim(rand.Uint64N(uint64(n)))
		before := time.Now()
		k.Check(ctx, c, forever)
		wait := time.Since(before)
		if wait > 2*time.Microsecond {
			was := taken
			if taken = involuntarySwitches(); taken == was {
				most = max(most, wait)
			}
		}
		if before.After(end) {
			return float64(most) / float64(time.Millisecond)
		}
	}
}

func involuntarySwitches() int64 {
	const thread = 1 // RUSAGE_THREAD
	var u syscall.Rusage
	syscall.Getrusage(thread, &u)
	return u.Nivcsw
}
