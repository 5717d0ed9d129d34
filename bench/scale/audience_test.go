package scale

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing/synctest"
	"time"

	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/lease"
	"github.com/streamguard/streamguard/memstore"
)

const (
	tick    = 49 * time.Millisecond // never the moment at which a gate stops waiting for more refreshes
	horizon = 1 << 14               // ticks that are planned ahead
	perUser = 1.55                  // playbacks of a user
	session = 30 * time.Minute
)

var policy = guard.Policy{Limit: guard.DefaultLimit, Interval: guard.DefaultInterval, TTL: guard.DefaultTTL, CountLocally: true}

// way is how a player asks: as measured with real ones.
type way struct {
	share  int // of a hundred viewers
	gap    time.Duration
	stream bool // of channels: its viewer zaps
}

var ways = []way{
	{60, 2 * time.Second, false},       // VOD, 4 s segments, audio and video: 30 requests a minute
	{30, time.Second, true},            // live: 60
	{10, 250 * time.Millisecond, true}, // low latency: 240
}

// retries is how often a minute a refused player asks on, and after how many
// times it gives up, until its viewer tries again.
var retries = []struct {
	rate   int
	giveUp int
}{
	{60, 1},          // native
	{60, 8},          // hls.js
	{80, 1 << 30},    // dash.js
	{155, 1 << 30},   // Shaka
	{240, 1 << 30},   // video.js, HLS
	{2900, 1 << 30},  // video.js, DASH
	{60, 4}, {60, 4}, // at the manifest: any
	{60, 4}, {60, 4}, //
}

const again = 20 * time.Second // after which who has given up presses play once more

type viewer struct {
	id      guard.ID
	user    string
	channel uint32
	gate    int
	way     uint8
	retry   uint8
	refused int
	burst   int // requests of the start that are left
	crowd   bool
	ends    time.Time // zero: not playing
}

// audience is viewers at gates before one store.
type audience struct {
	rng      *rand.Rand
	store    *counter
	gates    []*gate
	viewers  []viewer
	planned  [horizon][]int32
	at       int
	affinity bool // a viewer's requests all come to one gate
}

type gate struct {
	*lease.Keeper
	local *memstore.Store
}

func newGate(s guard.Store) *gate {
	local := memstore.New()
	return &gate{lease.New(s, local, nil), local}
}

func (g *gate) stop() {
	g.Close()
	g.local.Close()
}

func newAudience(seed uint64, viewers, gates int, affinity bool) *audience {
	a := &audience{
		rng:      rand.New(rand.NewPCG(seed, 1)),
		store:    &counter{begun: time.Now(), ledgers: make(map[string]*guard.Ledger)},
		viewers:  make([]viewer, viewers),
		affinity: affinity,
	}
	for range gates {
		a.gates = append(a.gates, newGate(a.store))
	}
	for i := range a.viewers {
		v := &a.viewers[i]
		v.user = fmt.Sprintf("user-%011d", int(float64(i)/perUser))
		v.gate = a.rng.IntN(gates)
		v.retry = uint8(a.rng.IntN(len(retries)))
		for n := a.rng.IntN(100); n >= ways[v.way].share; v.way++ {
			n -= ways[v.way].share
		}
	}
	return a
}

func (a *audience) close() {
	for _, g := range a.gates {
		g.stop()
	}
}

// start has viewers from one number to another start within a time.
func (a *audience) start(from, to int, within time.Duration) {
	for i := from; i < to; i++ {
		a.plan(i, time.Duration(a.rng.Int64N(int64(within)+1)))
	}
}

func (a *audience) plan(i int, in time.Duration) {
	n := (a.at + 1 + min(int(in/tick), horizon-2)) % horizon
	a.planned[n] = append(a.planned[n], int32(i))
}

// play lets time pass.
func (a *audience) play(d time.Duration) {
	for range d / tick {
		time.Sleep(tick)
		a.at = (a.at + 1) % horizon
		due := a.planned[a.at]
		a.planned[a.at] = nil
		for _, i := range due {
			a.plan(int(i), a.step(&a.viewers[i]))
			synctest.Wait() // gates take refreshes in the same order each time
		}
	}
}

// step is what a viewer does next, and how long until the one after.
func (a *audience) step(v *viewer) time.Duration {
	if v.ends.IsZero() {
		binary.NativeEndian.PutUint64(v.id[:], a.rng.Uint64())
		binary.NativeEndian.PutUint64(v.id[8:], a.rng.Uint64())
		v.ends = time.Now().Add(30*time.Second + time.Duration(a.rng.ExpFloat64()*float64(session)))
		v.burst, v.refused, v.channel = 20+a.rng.IntN(154), 0, a.rng.Uint32()
	}
	if time.Now().After(v.ends) {
		v.ends = time.Time{}
		if a.rng.IntN(2) == 0 { // the others just vanish
			a.gates[v.gate].Release(context.Background(), v.user, v.id, policy)
		}
		return time.Duration(a.rng.Int64N(int64(10 * time.Second)))
	}
	if !a.ask(v) {
		return a.afterRefusal(v)
	}
	v.refused = 0
	if v.burst > 0 {
		v.burst--
		return 60 * time.Millisecond
	}
	w := &ways[v.way]
	switch n := a.rng.IntN(int(time.Hour / w.gap)); { // how often in an hour
	case n < 1:
		return time.Duration(a.rng.Int64N(int64(10 * time.Minute))) // a pause
	case n < 4:
		return 59_800 * time.Millisecond // a hidden tab
	case n < 24 && w.stream:
		v.channel = a.rng.Uint32()
	}
	return w.gap*3/4 + time.Duration(a.rng.Int64N(int64(w.gap/2)))
}

func (a *audience) ask(v *viewer) (pass bool) {
	p := policy
	if v.crowd {
		p.Limit = 1
	}
	n := 1
	if v.refused > 0 { // several requests a tick
		n = max(1, retries[v.retry].rate*int(tick/time.Millisecond)/60_000)
	}
	g := v.gate
	if !a.affinity {
		g = a.rng.IntN(len(a.gates))
	}
	c := guard.Claim{User: v.user, ID: v.id, Stream: fmt.Sprintf("stream-%017d", v.channel), Named: true}
	for range n {
		verdict, trial, err := a.gates[g].Check(context.Background(), c, p)
		if err != nil {
			panic(err)
		}
		trial.End(true)
		pass = verdict.Outcome.Pass()
	}
	a.store.mu.Lock()
	a.store.now().requests += n
	a.store.mu.Unlock()
	return pass
}

func (a *audience) afterRefusal(v *viewer) time.Duration {
	v.refused++
	r := retries[v.retry]
	if v.refused >= r.giveUp {
		v.ends = time.Time{}
		return again
	}
	return max(time.Minute/time.Duration(r.rate), tick)
}
