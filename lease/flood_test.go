package lease

import (
	"context"
	"flag"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/memstore"
)

// heap is how many bytes are in use, after what is garbage is gone.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse)
}

// One user, at the limit with guards of the longest names there are, asks for
// playback after playback. What that leaves in memory has a bound, and is gone soon.
func TestFloodOfRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memstore.New()
		defer s.Close()
		k := New(refusing{s}, s, nil) // which is asked by nobody
		defer k.Close()
		before := heap()
		p := guard.Policy{Limit: 200, Interval: time.Minute, TTL: 90 * time.Second}
		for n := range maxInTheWay/200 + 500 {
			if v, err := delivered(k.Check(t.Context(), claim(n), p)); err != nil || v.Outcome != guard.Rejected {
				t.Fatalf("claim %d: %v, %v", n, v.Outcome, err)
			}
		}
		if _, denials := k.Size(); denials == 0 || k.denials.inTheWay.Load() > maxInTheWay+200 {
			t.Errorf("%d refusals that name %d guards are remembered", denials, k.denials.inTheWay.Load())
		}
		// Each guard's names are 765 bytes here, and its own struct 144.
		if grown := heap() - before; grown > maxInTheWay*1200 {
			t.Errorf("grown by %d MB", grown>>20)
		}
		time.Sleep(denialTime + sweepEvery)
		if _, denials := k.Size(); denials != 0 || k.denials.inTheWay.Load() != 0 {
			t.Errorf("afterwards %d refusals that name %d guards are remembered", denials, k.denials.inTheWay.Load())
		}
	})
}

// What is remembered of a refusal holds on neither to the request nor to all of
// the store's answer.
func TestRefusalsHoldOnToTheirOwnNamesOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memstore.New()
		defer s.Close()
		k := New(verbose{s}, s, nil)
		defer k.Close()
		const refusals = 1000
		before := heap()
		for n := range refusals {
			c := claim(n)
			c.Stream = long()[:10]
			if v, err := delivered(k.Check(t.Context(), c, policy)); err != nil || v.Outcome != guard.Rejected {
				t.Fatalf("claim %d: %v, %v", n, v.Outcome, err)
			}
		}
		if _, denials := k.Size(); denials != refusals {
			t.Errorf("%d refusals are remembered, want %d", denials, refusals)
		}
		if grown := heap() - before; grown > refusals*len64/4 {
			t.Errorf("grown by %d bytes for each refusal", grown/refusals)
		}
	})
}

const len64 = 64 << 10

// long is a request, or an answer, of which little matters.
func long() string { return strings.Repeat("x", len64) }

// verbose refuses with names that are parts of long answers.
type verbose struct{ *memstore.Store }

func (verbose) Acquire(context.Context, guard.Claim, guard.Policy) (guard.Verdict, error) {
	answer := long()
	g := guard.Guard{User: answer[:4], Stream: answer[:10], Device: answer[:5], Labels: guard.Labels(answer[:6])}
	return guard.Verdict{Outcome: guard.Rejected, Limit: policy.Limit, FreeIn: time.Minute, InTheWay: []guard.Guard{g}}, nil
}

// A million strangers, or as many as -flood says: those who played before go on
// without asking, and when the strangers' guards are over nothing is left.
func TestFloodOfUsers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, local := memstore.New(), memstore.New()
		defer s.Close()
		defer local.Close()
		k := New(s, local, nil)
		defer k.Close()
		before := heap()
		viewers := make([]guard.Claim, 1000)
		for n := range viewers {
			viewers[n] = stranger(-n - 1)
			delivered(k.Check(t.Context(), viewers[n], policy))
		}
		refused := 0
		for n := range *flood {
			v, err := delivered(k.Check(t.Context(), stranger(n), policy))
			if err != nil {
				refused++ // the store is full
			} else if v.Outcome != guard.Admitted {
				t.Fatalf("stranger %d: %v", n, v.Outcome)
			}
			if n%1000 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
		if want := max(0, *flood+len(viewers)-memstore.MaxUsers); refused != want {
			t.Errorf("%d strangers were told that the store is full, want %d", refused, want)
		}
		for n, c := range viewers {
			if v, err := delivered(k.Check(t.Context(), c, policy)); err != nil || v.Outcome != guard.Known {
				t.Fatalf("viewer %d: %v, %v", n, v.Outcome, err)
			}
		}
		held := int64(min(*flood+len(viewers), memstore.MaxUsers))
		if grown := heap() - before; grown > 1000*held+8<<20 {
			t.Errorf("%d users take %d bytes each", held, grown/held)
		} else {
			t.Logf("%d users take %d bytes each", held, grown/held)
		}
		time.Sleep(policy.TTL + time.Minute)
		if leases, denials := k.Size(); leases != 0 || denials != 0 {
			t.Errorf("afterwards %d leases and %d refusals are left", leases, denials)
		}
		if left := heap() - before; left > 100*held+8<<20 {
			t.Errorf("afterwards %d bytes are left of each user", left/held)
		} else {
			t.Logf("afterwards %d bytes are left of each", left/held)
		}
	})
}

var flood = flag.Int("flood", 100_000, "strangers who come at once")

func stranger(n int) guard.Claim {
	user := fmt.Sprintf("stranger %d", n)
	return guard.Claim{User: user, ID: guard.DeriveID(user, "", "playback"), Stream: "vod/movie", Named: true}
}

// Clients that take leave at once, as by resetting their streams, leave a
// bounded number of calls behind: then they are waited for.
func TestCallsLeftBehindAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		local := memstore.New()
		defer local.Close()
		s := &slow{Store: local}
		k := New(s, local, nil)
		defer k.Close()
		const handlers = 50
		var clients sync.WaitGroup
		for h := range handlers {
			clients.Go(func() {
				for n := range 100 {
					ctx, leave := context.WithTimeout(t.Context(), time.Millisecond)
					if _, err := delivered(k.Check(ctx, stranger(h*100+n), policy)); err == nil {
						t.Error("a client that has gone was answered")
					}
					leave()
				}
			})
		}
		clients.Wait()
		if most := s.most.Load(); most < maxLeft || most > maxLeft+handlers {
			t.Errorf("%d calls were under way at once, want %d and one of each handler", most, maxLeft)
		}
		time.Sleep(time.Minute)
		if left := len(k.left); left != 0 {
			t.Errorf("%d calls are still under way", left)
		}
	})
}

// slow is a store that takes a second for each call.
type slow struct {
	*memstore.Store
	now, most atomic.Int64 // calls under way
}

func (s *slow) Acquire(ctx context.Context, c guard.Claim, p guard.Policy) (guard.Verdict, error) {
	now := s.now.Add(1)
	defer s.now.Add(-1)
	for most := s.most.Load(); now > most && !s.most.CompareAndSwap(most, now); most = s.most.Load() {
	}
	time.Sleep(time.Second)
	return s.Store.Acquire(ctx, c, p)
}

// refusing refuses with 200 guards in the way, each time read anew as from a
// network.
type refusing struct{ *memstore.Store }

func (refusing) Acquire(context.Context, guard.Claim, guard.Policy) (guard.Verdict, error) {
	v := guard.Verdict{Outcome: guard.Rejected, Limit: 200, FreeIn: time.Minute}
	for n := range 200 {
		name := fmt.Sprintf("%0255d", n)
		v.InTheWay = append(v.InTheWay, guard.Guard{Stream: name, Device: strings.Clone(name), Labels: guard.Labels(strings.Clone(name))})
	}
	return v, nil
}

// However many calls of one user are under way, those of others come in between.
func TestCallsOfOneUserTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		local := memstore.New()
		defer local.Close()
		s := &slow{Store: local}
		k := New(s, local, nil)
		defer k.Close()
		var all sync.WaitGroup
		for n := range 10 * atATime {
			all.Go(func() {
				c := stranger(n)
				c.User = "one"
				if n%2 == 0 {
					delivered(k.Check(t.Context(), c, policy))
				} else {
					k.Acquire(t.Context(), c, policy)
				}
			})
		}
		all.Wait()
		if most := s.most.Load(); most != atATime {
			t.Errorf("%d calls of one user were under way at once, want %d", most, atATime)
		}
	})
}
