package lease

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/memstore"
)

var (
	seeds = flag.Int("sim.seeds", 60, "histories of TestSimulation")
	seed  = flag.Uint64("sim.seed", 0, "the one history of TestSimulation to run; 0 runs all")
)

// TestSimulation plays random histories of viewers, nodes and a store in
// virtual time: the store goes away, forgets everything, loses requests and
// replies and runs what it was asked twice; news of endings come late or never;
// nodes die and are replaced. Whatever happens:
//
//   - The store never admits past the limit, but for guards that it lost.
//   - A viewer of a user who keeps to the limit is never refused, nor is any
//     who plays, as long as their node lives.
//   - While nothing fails, no user plays more than the limit.
//   - A playback that was revoked stops within a refresh period, even if nobody
//     hears of it.
//   - Once nothing fails any more, the store holds what is played, and then
//     nothing.
func TestSimulation(t *testing.T) {
	first, last := uint64(1), uint64(*seeds)
	if *seed != 0 {
		first, last = *seed, *seed
	}
	for s := first; s <= last; s++ {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, s)
			w.run()
		})
		if t.Failed() {
			t.Fatalf("run it again with -sim.seed=%d", s)
		}
	}
}

const (
	simulated = 6 * time.Minute
	silence   = 100 * time.Second // after which a guard is gone that nobody released
	patience  = 500 * time.Millisecond
)

type world struct {
	t        *testing.T
	seed     uint64
	faults   bool
	begun    time.Time
	calm     atomic.Bool // no more faults
	away     atomic.Bool // the store is
	replaced atomic.Bool // a node was

	mu      sync.Mutex
	ledgers map[string]*guard.Ledger
	nodes   [3]*simNode
	playing map[string]map[guard.ID]bool
	running sync.WaitGroup
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{
		t: t, seed: seed, faults: seed%3 != 0, begun: time.Now(),
		ledgers: make(map[string]*guard.Ledger),
		playing: make(map[string]map[guard.ID]bool),
	}
	for i := range w.nodes {
		w.nodes[i] = w.start(uint64(i))
	}
	return w
}

func (w *world) rand(who uint64) *rand.Rand { return rand.New(rand.NewPCG(w.seed, who)) }

func (w *world) over() bool { return time.Since(w.begun) >= simulated }

func (w *world) run() {
	actor := uint64(100)
	act := func(f func(rng *rand.Rand)) {
		actor++
		rng := w.rand(actor)
		w.running.Go(func() {
			time.Sleep(time.Duration(rng.Int64N(int64(20 * time.Second))))
			for !w.over() {
				f(rng)
			}
		})
	}
	for u := range 3 {
		for range policy.Limit { // one device of the user each
			act(func(rng *rand.Rand) { w.honest(rng, fmt.Sprint("honest", u)) })
		}
		for range policy.Limit + 2 {
			act(func(rng *rand.Rand) { w.greedy(rng, fmt.Sprint("greedy", u)) })
		}
	}
	act(w.revoked)
	if w.faults {
		act(w.fail)
	}
	time.Sleep(simulated - 100*time.Second)
	w.calm.Store(true)
	w.away.Store(false)
	time.Sleep(95 * time.Second) // a refresh is due after 20, and a hidden tab is silent for 60
	w.stored()
	w.running.Wait()
	time.Sleep(silence + sweepEvery)
	for user, l := range w.ledgers {
		if !l.Forget(time.Now()) {
			w.t.Errorf("when all is over the store has %+v of %s", l.List(time.Now()), user)
		}
	}
	for _, n := range w.nodes {
		if leases, denials := n.Size(); leases+denials > 0 {
			w.t.Errorf("when all is over a node has %d leases and %d refusals", leases, denials)
		}
		n.stop()
	}
}

// stored checks that what is played is in the store.
func (w *world) stored() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for user, playing := range w.playing {
		held := make(map[guard.ID]bool)
		if l := w.ledgers[user]; l != nil {
			for _, g := range l.List(time.Now()) {
				held[g.ID] = true
			}
		}
		for id := range playing {
			if !held[id] {
				w.t.Errorf("%s plays %v, which the store does not hold", user, id)
			}
		}
	}
}

func (w *world) fail(rng *rand.Rand) {
	time.Sleep(time.Duration(rng.Int64N(int64(40 * time.Second))))
	if w.calm.Load() {
		return
	}
	switch rng.IntN(4) {
	case 0, 1:
		w.away.Store(true)
		time.Sleep(time.Duration(rng.Int64N(int64(60 * time.Second))))
		w.away.Store(false)
	case 2:
		w.mu.Lock()
		clear(w.ledgers)
		w.mu.Unlock()
	case 3:
		if w.seed%2 == 0 {
			return // without: more can be promised
		}
		w.replaced.Store(true)
		i := rng.IntN(len(w.nodes))
		n := w.start(rng.Uint64())
		w.mu.Lock()
		old := w.nodes[i]
		w.nodes[i] = n
		w.mu.Unlock()
		old.stop()
	}
}

func (w *world) node(i int) *simNode {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.nodes[i]
}

// play plays one video on one node and reports whether it came to its own end,
// and what it was.
func (w *world) play(rng *rand.Rand, user string) (id guard.ID, at int, ended bool) {
	id = guard.DeriveID(user, "", fmt.Sprint(rng.Uint64()))
	c := guard.Claim{User: user, ID: id, Stream: fmt.Sprint("movie", rng.IntN(3))}
	p := policy
	p.CountLocally = true
	at = rng.IntN(len(w.nodes))
	defer w.plays(user, id, false)
	for end := time.Now().Add(time.Duration(5+rng.IntN(120)) * time.Second); time.Now().Before(end) && !w.over(); {
		v, err := w.node(at).Check(context.Background(), c, p)
		if err != nil {
			w.t.Errorf("seed %d: %s: %v", w.seed, user, err)
		}
		if !v.Outcome.Pass() {
			// A node that was replaced cannot know whom another let in while the store was away.
			if c.Intent == guard.Continue && !w.replaced.Load() {
				w.t.Errorf("seed %d: after %v %s, who plays, is refused %v: %v", w.seed, time.Since(w.begun), user, id, v.Outcome)
			}
			return id, at, false
		}
		w.plays(user, id, true)
		c.Intent = guard.Continue
		pause := time.Duration(500+rng.IntN(6000)) * time.Millisecond
		if rng.IntN(40) == 0 {
			pause = 59_800 * time.Millisecond // a hidden tab
		}
		time.Sleep(pause + time.Duration(rng.IntN(1000)))
	}
	return id, at, true
}

func (w *world) plays(user string, id guard.ID, on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.playing[user] == nil {
		w.playing[user] = make(map[guard.ID]bool)
	}
	if !on {
		delete(w.playing[user], id)
		return
	}
	w.playing[user][id] = true
	if n := len(w.playing[user]); n > policy.Limit && !w.faults {
		w.t.Errorf("seed %d: %s plays %d", w.seed, user, n)
	}
}

// end stops a playback, politely or not, and waits until its slot is free.
func (w *world) end(rng *rand.Rand, user string, id guard.ID, at int) {
	if rng.IntN(2) == 0 {
		if found, err := w.node(at).Release(context.Background(), user, id, policy); found && err == nil {
			return
		}
	}
	time.Sleep(silence)
}

func (w *world) honest(rng *rand.Rand, user string) {
	id, at, ended := w.play(rng, user)
	if !ended {
		w.t.Errorf("seed %d: after %v %s, who keeps to the limit, is refused %v", w.seed, time.Since(w.begun), user, id)
	}
	w.end(rng, user, id, at)
}

func (w *world) greedy(rng *rand.Rand, user string) {
	id, at, ended := w.play(rng, user)
	if ended {
		w.end(rng, user, id, at)
	} else {
		time.Sleep(time.Duration(rng.Int64N(int64(5 * time.Second))))
	}
}

// revoked plays a video that is revoked on another node.
func (w *world) revoked(rng *rand.Rand) {
	const user = "revoked"
	id := guard.DeriveID(user, "", fmt.Sprint(rng.Uint64()))
	c := guard.Claim{User: user, ID: id, Intent: guard.Continue}
	at := rng.IntN(len(w.nodes))
	var until time.Time
	for n := 0; n < 60 && !w.over(); n++ {
		v, err := w.node(at).Check(context.Background(), c, policy)
		if err == nil && v.Outcome.Pass() && !until.IsZero() && time.Now().After(until) && !w.faults {
			w.t.Errorf("seed %d: a playback goes on %v after it should have stopped", w.seed, time.Since(until))
		}
		if n == 20 {
			found, err := w.node(rng.IntN(len(w.nodes))).Revoke(context.Background(), user, id, policy)
			if found && err == nil {
				until = time.Now().Add(policy.Interval/3 + 2*time.Second)
			}
		}
		time.Sleep(time.Second + time.Duration(rng.IntN(1000)))
	}
	time.Sleep(silence)
}

// simNode is a keeper whose way to the store is bad.
type simNode struct {
	*Keeper
	local *memstore.Store
	link  *link
}

func (w *world) start(who uint64) *simNode {
	l := &link{w: w, rng: w.rand(who)}
	local := memstore.New()
	return &simNode{New(l, local, nil), local, l}
}

func (n *simNode) stop() {
	n.Close()
	n.local.Close()
}

type link struct {
	w     *world
	mu    sync.Mutex
	rng   *rand.Rand
	ended func(guard.ID)
}

func (l *link) draw(n int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rng.IntN(n)
}

// call runs f on the user's ledger, once, never or twice, and says whether the
// answer has arrived.
func (l *link) call(user string, f func(*guard.Ledger, time.Time)) error {
	trouble := 1 << 30
	if l.w.faults && !l.w.calm.Load() {
		trouble = 30
	}
	time.Sleep(time.Duration(l.draw(20_000)) * time.Microsecond)
	if l.w.away.Load() || l.draw(trouble) == 0 {
		time.Sleep(patience)
		return errAway
	}
	times := 1
	if l.draw(trouble) == 0 {
		times = 2
	}
	for range times {
		l.w.mu.Lock()
		ledger := l.w.ledgers[user]
		if ledger == nil {
			ledger = new(guard.Ledger)
			l.w.ledgers[user] = ledger
		}
		f(ledger, time.Now().Truncate(time.Millisecond))
		l.w.mu.Unlock()
	}
	if l.draw(trouble) == 0 {
		time.Sleep(patience)
		return errAway
	}
	time.Sleep(time.Duration(l.draw(20_000)) * time.Microsecond)
	return nil
}

func (l *link) Acquire(_ context.Context, c guard.Claim, p guard.Policy) (v guard.Verdict, _ error) {
	err := l.call(c.User, func(ledger *guard.Ledger, now time.Time) {
		v = ledger.Acquire(now, c, p)
		if v.Outcome == guard.Admitted && c.Intent != guard.Resume && v.Held > p.Limit {
			l.w.t.Errorf("seed %d: %s is admitted to %d of %d", l.w.seed, c.User, v.Held, p.Limit)
		}
	})
	if err != nil {
		v = guard.Verdict{}
	}
	return v, err
}

func (l *link) Refresh(_ context.Context, user string, id guard.ID, p guard.Policy) (v guard.Verdict, _ error) {
	err := l.call(user, func(ledger *guard.Ledger, now time.Time) { v = ledger.Refresh(now, id, p) })
	return v, err
}

func (l *link) Release(_ context.Context, user string, id guard.ID, p guard.Policy) (found bool, _ error) {
	err := l.call(user, func(ledger *guard.Ledger, now time.Time) { found = ledger.Release(now, id, p) || found })
	l.publish(id)
	return found, err
}

func (l *link) Revoke(_ context.Context, user string, id guard.ID, p guard.Policy) (found bool, _ error) {
	err := l.call(user, func(ledger *guard.Ledger, now time.Time) { found = ledger.Revoke(now, id, p) || found })
	l.publish(id)
	return found, err
}

func (l *link) List(_ context.Context, user string) (guards []guard.Guard, _ error) {
	err := l.call(user, func(ledger *guard.Ledger, now time.Time) { guards = ledger.List(now) })
	return guards, err
}

func (l *link) Watch(ctx context.Context, ended func(guard.ID)) {
	l.mu.Lock()
	l.ended = ended
	l.mu.Unlock()
	<-ctx.Done()
}

// publish tells some nodes, some time.
func (l *link) publish(id guard.ID) {
	l.w.mu.Lock()
	nodes := l.w.nodes
	l.w.mu.Unlock()
	for _, n := range nodes {
		if l.draw(2) == 0 {
			continue
		}
		delay := time.Duration(l.draw(2000)) * time.Millisecond
		l.w.running.Go(func() {
			time.Sleep(delay)
			n.link.mu.Lock()
			ended := n.link.ended
			n.link.mu.Unlock()
			if ended != nil {
				ended(id)
			}
		})
	}
}
