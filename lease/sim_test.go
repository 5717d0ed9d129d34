package lease

import (
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/streamguard/streamguard/guard"
)

var (
	seeds = flag.Int("sim.seeds", 40, "histories of TestSimulation")
	seed  = flag.Uint64("sim.seed", 0, "the one history of TestSimulation to run; 0 runs all")
)

// TestSimulation plays random histories of viewers, nodes and a store in
// virtual time, with the faults below, and after them a time without. Always:
//
//  1. The store admits past the limit only to restore: a guard that it lost, or
//     that a node granted or carried on alone while the store did not answer; or
//     one that was replaced, where it lost that.
//  2. A viewer who plays is never refused, but for a guard of (1) where its node
//     was replaced or has late news of an ending before its start, or where the
//     store has come to hold what was over as in (3). One who was silent for longer
//     than a hidden tab may be.
//  3. A viewer of a user who keeps to the limit is never refused, but for ttl
//     after the store has come to hold what was over: a replica that missed a
//     release has taken over, or the first call after its clock was set back.
//  4. A playback that was revoked stops within a refresh period of when its node
//     can ask the store, even if nobody tells it, unless the store lost that too.
//  5. Who is refused may start as soon as another has stopped on this node.
//  6. Nobody is answered by a policy other than the request's.
//  7. Where a start replaces others it is never refused, and what it replaced does not come back.
//  8. Once nothing fails any more, the store holds what is played and what was
//     played within ttl, and when nobody plays nothing, nor do the nodes.
//  9. Who keeps a guard by explicit calls is never told that it is gone, as in (2).
//  10. What is told from memory was judged here, of an equal claim by an equal
//     policy, at most 2 s ago, and before there is room by itself.
//
// While nothing fails, also: nobody plays without a slot, nor more than the limit,
// but for requests from before a release, which pass for no longer than the
// playback had its guard, and once within ttl.
func TestSimulation(t *testing.T) {
	first, last := uint64(1), uint64(*seeds)
	if *seed != 0 {
		first, last = *seed, *seed
	}
	operations := 0
	for s := first; s <= last; s++ {
		operations += simulate(t, s).store.operations
		if t.Failed() {
			t.Fatalf("run it again with -sim.seed=%d", s)
		}
	}
	t.Logf("%d operations of the store", operations)
}

func TestAHistoryIsTheSameEachTime(t *testing.T) {
	for s := range uint64(5) {
		if a, b := simulate(t, s), simulate(t, s); a.trace != b.trace {
			t.Errorf("history %d is another one the second time", s)
		}
	}
}

func simulate(t *testing.T, seed uint64) (w *world) {
	synctest.Test(t, func(t *testing.T) {
		w = newWorld(t, seed)
		w.run()
	})
	return w
}

// fault is what may happen in a history: some have all, some a few.
type fault uint

const (
	badLines  fault = 1 << iota // requests lost or doubled, answers lost
	lateNews                    // of endings: minutes late
	away                        // the store does not answer
	flushed                     // it comes back empty
	failover                    // to a replica that has missed the last writes
	clockOn                     // its clock is set forward
	clockBack                   // or back
	killed                      // a node, and another starts
	cutOff                      // one node cannot reach the store
	stopped                     // a node's process stands still
	tardy                       // the store answers late, each other minute
	allFaults = 1<<iota - 1
)

const (
	simulated = 6 * time.Minute
	faultless = 100 * time.Second         // of it, at the end
	silence   = 100 * time.Second         // after which a guard is gone that nobody released
	patience  = 500 * time.Millisecond    // the store's timeout, or
	muchOfIt  = 4 * time.Second           // where it may be slow
	latency   = 20 * time.Millisecond     // each way
	playing   = 70 * time.Second          // between requests of who plays, at most: ttl, but for a refresh that was not due yet
	hidden    = 59_800 * time.Millisecond // between requests of a hidden tab
)

type world struct {
	t       *testing.T
	seed    uint64
	faults  fault
	begun   time.Time
	calm    atomic.Bool // no more faults
	away    atomic.Bool // the store is
	running sync.WaitGroup

	mu      sync.Mutex
	store   truth
	nodes   [3]*simNode
	playing map[string]map[guard.ID]bool
	seen    map[guard.ID]time.Time // when a playback last asked
	unsure  map[guard.ID]bool      // guards that the store lost, or a node granted or carried on alone
	refused map[guard.ID]time.Time // when a playback that was told so from memory is to be judged anew
	judged  map[question]bool
	freed   map[guard.ID]int // the node on which a guard was released
	trace   uint64
}

// question is a claim with the policy it is judged by, on one node.
type question struct {
	node  *link
	claim guard.Claim
	limit int
	times time.Duration
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{
		t: t, seed: seed, begun: time.Now(),
		store:   newTruth(),
		playing: make(map[string]map[guard.ID]bool),
		seen:    make(map[guard.ID]time.Time),
		unsure:  make(map[guard.ID]bool),
		refused: make(map[guard.ID]time.Time),
		judged:  make(map[question]bool),
		freed:   make(map[guard.ID]int),
	}
	switch seed % 4 {
	case 1:
		w.faults = allFaults
	case 2, 3:
		w.faults = fault(w.rand(99).Uint64()) & fault(w.rand(98).Uint64()) & allFaults
	}
	for i := range w.nodes {
		w.nodes[i] = w.start(uint64(i))
	}
	return w
}

func (w *world) rand(who uint64) *rand.Rand { return rand.New(rand.NewPCG(w.seed, who)) }

func (w *world) has(f fault) bool { return w.faults&f != 0 }

func (w *world) late() bool {
	return w.has(tardy) && !w.calm.Load() && time.Since(w.begun)/time.Minute%2 == 0
}

func (w *world) over() bool { return time.Since(w.begun) >= simulated }

func (w *world) wrong(format string, args ...any) {
	w.t.Helper()
	w.t.Errorf("seed %d, after %v: %s", w.seed, time.Since(w.begun), fmt.Sprintf(format, args...))
}

// tell tells of the one history that is to be played.
func (w *world) tell(format string, args ...any) {
	if *seed != 0 {
		w.t.Logf("%12v %s", time.Since(w.begun), fmt.Sprintf(format, args...))
	}
}

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
	for u := range 2 {
		for range policy.Limit { // one device of the user each
			act(func(rng *rand.Rand) { w.honest(rng, fmt.Sprint("honest", u)) })
		}
		for range policy.Limit + 2 {
			act(func(rng *rand.Rand) { w.greedy(rng, fmt.Sprint("greedy", u)) })
		}
	}
	act(w.revoked)
	act(w.zapping)
	act(w.sharing)
	act(w.crowding)
	for range policy.Limit + 2 {
		act(w.calling)
		act(w.returning)
	}
	if w.has(tardy) {
		for u := range 3 {
			act(func(rng *rand.Rand) { w.lingering(rng, fmt.Sprint("lingering", u)) })
		}
	}
	if w.faults != 0 {
		act(w.fail)
		act(w.fail)
	}
	time.Sleep(simulated - faultless)
	w.calm.Store(true)
	time.Sleep(faultless - 2*time.Second) // a refresh is due after 20 s, and a hidden tab is silent for 60
	w.converged()
	w.running.Wait()
	w.mu.Lock()
	for user := range w.store.ledgers { // what is too long for a clock that was set back is cut by the next call
		do(&w.store, user, func(l *guard.Ledger, now time.Time) guard.Verdict { return l.Refresh(now, guard.ID{}, policy) })
	}
	w.mu.Unlock()
	time.Sleep(silence + sweepEvery)
	for user, l := range w.store.ledgers {
		if !l.Forget(w.store.now()) {
			w.wrong("when all is over the store has %+v of %s", l.List(w.store.now()), user)
		}
	}
	for _, n := range w.nodes {
		if leases, denials := n.Size(); leases+denials+n.named.Size() > 0 {
			w.wrong("when all is over a node has %d leases and %d refusals, and knows %d guards' names", leases, denials, n.named.Size())
		}
		n.Close()
	}
}

// converged checks that the store holds what is played and what was lately.
func (w *world) converged() {
	w.mu.Lock()
	defer w.mu.Unlock()
	held := make(map[guard.ID]bool)
	for user, l := range w.store.ledgers {
		for _, g := range l.List(w.store.now()) {
			held[g.ID] = true
			if since := time.Since(w.seen[g.ID]); since > silence && !w.store.maybeWrong(user) {
				w.wrong("%s was last played %v ago by %s and still has its slot", g.ID, since, user)
			}
		}
	}
	for user, playing := range w.playing {
		for id := range playing {
			if !held[id] {
				w.wrong("%s plays %v, which the store does not hold", user, id)
			}
		}
	}
}

func (w *world) fail(rng *rand.Rand) {
	upTo := func(d time.Duration) time.Duration { return time.Duration(rng.Int64N(int64(d))) }
	time.Sleep(upTo(30 * time.Second))
	f := fault(1) << rng.IntN(10) & w.faults
	if w.calm.Load() || f == 0 {
		return
	}
	faultsEnd := w.begun.Add(simulated - faultless)
	wait := func(d time.Duration) { time.Sleep(min(upTo(d), time.Until(faultsEnd))) }
	i := rng.IntN(len(w.nodes))
	l := w.node(i).link
	w.tell("fault %b at node %d", f, i)
	defer func() { w.tell("fault %b is over", f) }()
	switch f {
	case away:
		w.away.Store(true)
		wait(time.Minute)
		w.away.Store(false)
	case flushed, failover, clockOn, clockBack:
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, ledger := range w.store.ledgers {
			for _, g := range ledger.List(w.store.now()) {
				w.unsure[g.ID] = true
			}
		}
		clear(w.freed)
		switch f {
		case flushed:
			w.store.flush()
		case failover:
			w.store.failOver(upTo(10 * time.Second))
		case clockOn:
			w.store.setClock(upTo(time.Hour))
		case clockBack:
			w.store.setClock(-upTo(time.Hour))
		}
	case killed:
		n := w.start(rng.Uint64())
		w.mu.Lock()
		old := w.nodes[i]
		w.nodes[i] = n
		w.mu.Unlock()
		old.Close()
	case cutOff:
		l.setCut(true)
		wait(2 * time.Minute)
		l.setCut(false)
	case stopped:
		l.mu.Lock()
		l.thaws = time.Now().Add(min(upTo(3*time.Minute), time.Until(faultsEnd)))
		l.mu.Unlock()
	}
}

func (w *world) node(i int) *simNode {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.nodes[i]
}

// acquired judges what the store said to a node.
func (w *world) acquired(l *link, c guard.Claim, p guard.Policy, v guard.Verdict) {
	w.judged[question{l, c, p.Limit, p.TTL}] = true
	w.tell("store: %s %v intent %d: %v, held %d", c.User, c.ID, c.Intent, v.Outcome, v.Held)
	if v.Outcome != guard.Admitted {
		return
	}
	if _, freed := w.freed[c.ID]; freed && c.Intent == guard.Resume {
		w.wrong("%s has %s restored, which was released", c.User, c.ID)
	}
	delete(w.freed, c.ID)
	restored := c.Intent == guard.Resume && (w.unsure[c.ID] || endsElsewhere(c.User) && w.store.losses > 0)
	if v.Held > p.Limit && !restored {
		w.wrong("%s is admitted to %d of %d with intent %d", c.User, v.Held, p.Limit, c.Intent)
	}
}

// ask is a request of a playback.
func (w *world) ask(n *simNode, c guard.Claim, p guard.Policy) (guard.Verdict, error) {
	n.link.pause(time.Microsecond)
	w.asks(c.ID)
	asked := time.Now()
	v, err := n.Check(context.Background(), c, p)
	w.told(question{n.link, c, p.Limit, p.TTL}, asked, v)
	n.link.pause(time.Microsecond)
	w.mu.Lock()
	defer w.mu.Unlock()
	h := fnv.New64a()
	binary.Write(h, binary.LittleEndian, time.Since(w.begun))
	h.Write(append(c.ID[:], byte(v.Outcome)))
	w.trace += h.Sum64()
	w.tell("%s %v: %v, held %d %v", c.User, c.ID, v.Outcome, v.Held, err)
	if err == nil && v.Limit != p.Limit {
		w.wrong("%s is judged by a limit of %d, not %d", c.User, v.Limit, p.Limit)
	}
	if v.Outcome == guard.Known && w.faults == 0 && !w.holds(c) && !endsElsewhere(c.User) {
		w.wrong("%s plays %s without a slot", c.User, c.ID)
	}
	for _, g := range v.InTheWay {
		if at, freed := w.freed[g.ID]; v.Repeated && freed && w.nodes[at] == n {
			w.wrong("%s is refused although %s was released here", c.User, g.ID)
		}
	}
	return v, err
}

// told looks at what is told from memory.
func (w *world) told(q question, asked time.Time, v guard.Verdict) {
	w.mu.Lock()
	defer w.mu.Unlock()
	id := q.claim.ID
	if !v.Repeated {
		delete(w.refused, id)
		return
	}
	judged := w.judged[q]
	if q.claim.Intent == guard.Continue { // what a start is denied, its segments are
		for _, start := range []guard.Intent{guard.Start, guard.Look} {
			was := q
			was.claim.Intent = start
			judged = judged || w.judged[was]
		}
	}
	if v.Outcome == guard.Rejected && !judged {
		w.wrong("%s is told of another claim's refusal", q.claim.User)
	}
	if anew, again := w.refused[id]; !again {
		w.refused[id] = asked.Add(min(2*time.Second, v.FreeIn))
	} else if asked.Sub(anew) > time.Millisecond {
		w.wrong("%s is told what was over %v ago", q.claim.User, asked.Sub(anew))
	}
}

// endsElsewhere reports whether a user's guards are ended by another node than
// the one that plays.
func endsElsewhere(user string) bool {
	return user == "revoked" || user == "zapping" || user == "crowding"
}

func (w *world) asks(id guard.ID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen[id] = time.Now()
}

func (w *world) holds(c guard.Claim) bool {
	for _, g := range w.store.ledger(c.User).List(w.store.now()) {
		if g.ID == c.ID || c.User == "sharing" && g.Stream == c.Stream {
			return true
		}
	}
	return false
}

// play plays a video on one node and reports whether it came to its own end.
func (w *world) play(rng *rand.Rand, user string, id guard.ID, at int, longest time.Duration) (ended bool) {
	c := guard.Claim{User: user, ID: id, Stream: fmt.Sprint("movie", rng.IntN(3))}
	segment := guard.Continue
	if rng.IntN(3) == 0 { // without an id
		segment, c.Stream = guard.Share, id.String()
	}
	p := w.policyOf(user)
	defer w.plays(user, id, false)
	first := w.node(at)
	first.link.starts(id)
	time.Sleep(time.Millisecond) // a node cannot tell a start from an ending in the same one
	var last, back time.Time
	for end := time.Now().Add(time.Duration(5+rng.IntN(120)) * time.Second); time.Now().Before(end) && !w.over(); {
		n := w.node(at)
		if c.Labels = ""; segment != guard.Share && rng.IntN(8) == 0 {
			c.Labels = c.Labels.With("screen", fmt.Sprint(rng.IntN(2)))
		}
		v, err := w.ask(n, c, p)
		if err != nil && p.CountLocally {
			w.wrong("%s: %v", user, err)
		}
		if err != nil || !v.Outcome.Pass() {
			if time.Since(last) < w.silentFor() && last.Sub(back) > 5*time.Second && !w.lost(c, first, n) {
				w.wrong("%s, who plays, is refused %v: %v, %v", user, id, v.Outcome, err)
			}
			return false
		}
		w.plays(user, id, true)
		if time.Since(last) >= playing && v.Outcome == guard.Known {
			back = time.Now() // the lease may be about to end, with the slot
		}
		c.Intent, last = segment, time.Now()
		if rng.IntN(10) == 0 { // it reports itself
			n.Keep(context.Background(), guard.Claim{User: user, ID: id}, p)
		}
		pause := time.Duration(500+rng.IntN(6000)) * time.Millisecond
		switch rng.IntN(60) {
		case 0:
			pause = hidden
		case 1:
			if longest > hidden { // paused
				pause = hidden + time.Duration(rng.Int64N(int64(longest-hidden)))
				w.plays(user, id, false)
			}
		case 2, 3, 4: // ended right after a request, with a refresh under way perhaps
			time.Sleep(time.Duration(rng.Int64N(int64(2 * linger))))
			return true
		}
		time.Sleep(pause + time.Duration(rng.IntN(1_000_000)))
	}
	return true
}

// silentFor is how long who plays may be silent: the store may hear of him that
// much later.
func (w *world) silentFor() time.Duration {
	if w.has(tardy) {
		return playing - 5*muchOfIt
	}
	return playing
}

func (w *world) policyOf(user string) guard.Policy {
	p := policy
	p.CountLocally = user != "greedy1" // for whom nobody counts while the store is away
	if user == "greedy0" {             // whose requests come to two handlers, of which one allows less
		p.Limit -= int(time.Now().UnixNano() % 2)
	}
	return p
}

// lost reports whether nobody can know any more that a playback was admitted:
// the store has lost it or not heard of it, and its node was replaced or has
// news of an earlier ending, or the store may take that for a later one.
func (w *world) lost(c guard.Claim, first, n *simNode) bool {
	failed, told := n.link.reachable(c.User), n.link.isTold(c.ID)
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.unsure[c.ID] && (n != first || told || w.store.maybeWrong(c.User)) || n != first && time.Since(failed) < silence
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
	if n := len(w.playing[user]); n > policy.Limit && w.faults == 0 {
		w.wrong("%s plays %d", user, n)
	}
}

// end stops a playback, politely or not, and waits until its slot is free.
func (w *world) end(rng *rand.Rand, user string, id guard.ID, at int) (released bool) {
	if rng.IntN(3) > 0 {
		n := w.node(at)
		n.link.pause(time.Microsecond)
		losses := w.losses()
		found, err := n.Release(context.Background(), user, id, policy)
		if found && err == nil {
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.nodes[at] == n && losses == w.store.losses && !w.holds(guard.Claim{User: user, ID: id}) {
				w.freed[id] = at
			}
			return true
		}
	}
	time.Sleep(silence)
	return false
}

func (w *world) honest(rng *rand.Rand, user string) {
	id, at := guard.DeriveID(user, "", fmt.Sprint(rng.Uint64())), rng.IntN(len(w.nodes))
	ended := w.play(rng, user, id, at, hidden)
	if w.mu.Lock(); !ended && !w.store.maybeWrong(user) {
		w.wrong("%s, who keeps to the limit, is refused %v", user, id)
	}
	w.mu.Unlock()
	w.end(rng, user, id, at)
}

// greedy tries to play once more than allowed. Refused, it tries again, as
// players do; released, it may start again under the same id.
func (w *world) greedy(rng *rand.Rand, user string) {
	id := guard.DeriveID(user, "", fmt.Sprint(rng.Uint64()))
	at := rng.IntN(len(w.nodes))
	for range 1 + rng.IntN(4) {
		if rng.IntN(3) == 0 {
			at = rng.IntN(len(w.nodes))
		}
		if rng.IntN(3) == 0 {
			w.glimpse(rng, user, id, at)
		}
		if w.play(rng, user, id, at, 3*hidden) && !w.end(rng, user, id, at) || w.over() {
			return
		}
		time.Sleep(time.Duration(rng.Int64N(int64(3 * time.Second))))
	}
}

// glimpse starts a playback and stops it before there is an answer.
func (w *world) glimpse(rng *rand.Rand, user string, id guard.ID, at int) {
	n := w.node(at)
	var asked sync.WaitGroup
	asked.Go(func() { w.ask(n, guard.Claim{User: user, ID: id, Stream: "movie0"}, w.policyOf(user)) })
	time.Sleep(time.Duration(rng.Int64N(int64(2 * latency))))
	n.link.pause(time.Microsecond)
	n.Release(context.Background(), user, id, policy)
	if rng.IntN(2) == 0 {
		asked.Wait()
	}
}

// revoked plays a video that is revoked on another node.
func (w *world) revoked(rng *rand.Rand) {
	const user = "revoked"
	c := guard.Claim{User: user, ID: guard.DeriveID(user, "", fmt.Sprint(rng.Uint64())), Intent: guard.Continue}
	at := rng.IntN(len(w.nodes))
	var (
		since  time.Time
		losses int
	)
	for n := 0; n < 60 && !w.over(); n++ {
		node := w.node(at)
		v, err := w.ask(node, c, policy)
		until := since
		if failed := node.link.reachable(user); failed.After(until) {
			until = failed
		}
		until = until.Add(policy.Interval/3 + 3*time.Second + 4*node.link.Timeout())
		if err == nil && v.Outcome.Pass() && time.Since(since) < policy.TTL-time.Second && losses == w.losses() && time.Now().After(until) {
			w.wrong("a playback goes on %v after it should have stopped", time.Since(until))
		}
		if n == 20 {
			by := w.node(rng.IntN(len(w.nodes)))
			losses = w.losses()
			by.link.pause(time.Microsecond)
			if found, err := by.Revoke(context.Background(), user, c.ID, policy); found && err == nil {
				since = time.Now()
			}
		}
		time.Sleep(time.Second + time.Duration(rng.Int64N(int64(time.Second))))
	}
	time.Sleep(silence)
}

// zapping starts one playback after the other, each in place of the one before,
// and plays a little of both. They are of two handlers with times of their own.
// Now and then it runs through more channels than there are marks.
func (w *world) zapping(rng *rand.Rand) {
	const user = "zapping"
	long := w.policyOf(user)
	long.Limit, long.AtLimit = 1, guard.ReplaceOldest
	short := long
	short.Interval, short.TTL = 20*time.Second, 30*time.Second
	start := func() (guard.Claim, guard.Policy, int) {
		c := guard.Claim{User: user, ID: guard.DeriveID(user, "", fmt.Sprint(rng.Uint64()))}
		p, at := long, rng.IntN(len(w.nodes))
		if rng.IntN(2) == 0 {
			p = short
		}
		v, err := w.ask(w.node(at), c, p)
		if err != nil || !v.Outcome.Pass() {
			w.wrong("who zaps is refused: %v, %v", v.Outcome, err)
		}
		c.Intent = guard.Continue
		return c, p, at
	}
	before, its, beforeAt := start()
	for !w.over() {
		replaced := time.Now()
		surfing := rng.IntN(6) == 0
		if surfing {
			for range guard.MaxMarks + rng.IntN(10) {
				start()
			}
		}
		c, p, at := start()
		silent := rng.IntN(2) == 0 // so is the one before, until it is asked for again
		rounds := rng.IntN(5)
		if silent {
			rounds = rng.IntN(25)
		}
		for n := range rounds {
			time.Sleep(time.Duration(rng.Int64N(int64(4 * time.Second))))
			w.ask(w.node(at), c, p)
			if silent && n < rounds-1 || time.Since(replaced) > max(its.TTL, p.TTL)-5*time.Second {
				continue
			}
			v, _ := w.ask(w.node(beforeAt), before, its)
			if w.faults == 0 && (v.Outcome == guard.Admitted || v.Outcome == guard.Refreshed) {
				w.wrong("what was replaced is %v", v.Outcome)
			}
		}
		before, its, beforeAt = c, p, at
	}
	time.Sleep(silence)
}

// crowding starts many playbacks, then one in place of them all under another
// handler's limit; and then all go on.
func (w *world) crowding(rng *rand.Rand) {
	const user, many = "crowding", 60
	p := w.policyOf(user)
	p.Limit, p.AtLimit = many, guard.ReplaceOldest
	claims, at := make([]guard.Claim, many), make([]int, many)
	for i := range claims {
		claims[i], at[i] = guard.Claim{User: user, ID: guard.DeriveID(user, "", fmt.Sprint(rng.Uint64()))}, rng.IntN(len(w.nodes))
		w.ask(w.node(at[i]), claims[i], p)
		claims[i].Intent = guard.Continue
	}
	p.Limit = 1
	last := guard.Claim{User: user, ID: guard.DeriveID(user, "", fmt.Sprint(rng.Uint64()))}
	if v, err := w.ask(w.node(0), last, p); err != nil || !v.Outcome.Pass() {
		w.wrong("who starts in place of %d others is refused: %v, %v", many, v.Outcome, err)
	}
	last.Intent = guard.Continue
	for range 5 {
		w.ask(w.node(0), last, p)
		time.Sleep(time.Duration(rng.Int64N(int64(10 * time.Second))))
	}
	for i, c := range claims {
		w.ask(w.node(at[i]), c, p)
	}
	time.Sleep(silence)
}

// calling keeps a guard by explicit calls and nothing else.
func (w *world) calling(rng *rand.Rand) {
	const user = "calling"
	c := guard.Claim{User: user, ID: guard.DeriveID(user, "", fmt.Sprint(rng.Uint64())), Stream: "movie0", Device: "tv"}
	at := rng.IntN(len(w.nodes))
	first := w.node(at)
	first.link.pause(time.Microsecond)
	w.asks(c.ID)
	if v, err := first.Acquire(context.Background(), c, policy); err != nil || !v.Outcome.Pass() {
		time.Sleep(time.Duration(rng.Int64N(int64(10 * time.Second))))
		if err != nil { // it may have its slot
			time.Sleep(silence)
		}
		return
	}
	w.plays(user, c.ID, true)
	last := time.Now()
	for range rng.IntN(10) {
		time.Sleep(time.Duration(rng.Int64N(int64(25 * time.Second))))
		if rng.IntN(6) == 0 {
			time.Sleep(hidden - 25*time.Second)
		}
		if w.over() {
			break
		}
		n := w.node(at)
		n.link.pause(time.Microsecond)
		w.asks(c.ID)
		v, err := n.Refresh(context.Background(), user, c.ID, policy)
		w.tell("%s %v is kept: %v %v", user, c.ID, v.Outcome, err)
		late := time.Since(last) >= w.silentFor() // its node stood still, say
		if err == nil && v.Outcome != guard.Refreshed && !late && !w.lost(c, first, n) {
			w.wrong("%s, who keeps %v, is told that it is %v", user, c.ID, v.Outcome)
		}
		if late || err == nil && v.Outcome != guard.Refreshed {
			break
		}
		if err == nil && v.Guard.Device != c.Device {
			w.wrong("%s has lost the names of %+v", user, v.Guard)
		}
		last = time.Now()
	}
	w.plays(user, c.ID, false)
	w.end(rng, user, c.ID, at)
}

// returning plays a channel and gives its slot back every few seconds, as if a
// limit could be avoided by that.
func (w *world) returning(rng *rand.Rand) {
	const user = "returning"
	p := w.policyOf(user)
	p.Limit = 1
	c := guard.Claim{User: user, ID: guard.DeriveID(user, "", fmt.Sprint(rng.Uint64())), Intent: guard.Continue}
	at := rng.IntN(len(w.nodes))
	var admitted, released, passed time.Time
	for range 60 + rng.IntN(60) {
		n := w.node(at)
		v, _ := w.ask(n, c, p)
		switch {
		case v.Outcome == guard.Admitted:
			admitted = time.Now()
		case v.Outcome == guard.Released && w.faults == 0:
			if had := released.Sub(admitted); time.Since(released) > had+4*latency {
				w.wrong("%s had a slot for %v and passes %v after it", user, had, time.Since(released))
			}
			if passed != released && released.Sub(passed) < p.TTL-4*latency {
				w.wrong("%s passes without a slot, and did so %v before", user, released.Sub(passed))
			}
			passed = released
		}
		if rng.IntN(4) == 0 {
			n.link.pause(time.Microsecond)
			if found, _ := n.Release(context.Background(), user, c.ID, p); found {
				released = time.Now()
			}
		}
		time.Sleep(time.Duration(rng.Int64N(int64(2 * time.Second))))
		if w.over() {
			break
		}
	}
	time.Sleep(silence)
}

// lingering plays on at the last moment before others may have the slot, for
// which they wait.
func (w *world) lingering(rng *rand.Rand, user string) {
	p := w.policyOf(user)
	p.Limit, p.Interval, p.TTL = 1, 20*time.Second, 30*time.Second
	claims := make([]guard.Claim, 4)
	for i := range claims {
		claims[i] = guard.Claim{User: user, ID: guard.DeriveID(user, "", fmt.Sprint(rng.Uint64()))}
	}
	n := w.node(0)
	w.ask(n, claims[0], p)
	asked := time.Now()
	claims[0].Intent = guard.Continue
	time.Sleep(p.TTL - muchOfIt - time.Since(asked))
	var others sync.WaitGroup
	for i, c := range claims[1:] {
		others.Go(func() {
			time.Sleep(time.Duration(i) * time.Microsecond)
			for time.Since(asked) < p.TTL+muchOfIt {
				w.ask(w.node(1), c, p)
				time.Sleep(100 * time.Millisecond)
			}
		})
	}
	time.Sleep(time.Duration(rng.Int64N(int64(muchOfIt))))
	w.ask(n, claims[0], p)
	others.Wait()
	time.Sleep(p.TTL + muchOfIt)
}

// sharing plays a video whose requests do not all have its id.
func (w *world) sharing(rng *rand.Rand) {
	const user = "sharing"
	p := w.policyOf(user)
	p.Limit = 1
	stream := fmt.Sprint("movie", rng.Uint64())
	named := guard.Claim{User: user, ID: guard.DeriveID(user, "", fmt.Sprint(rng.Uint64())), Stream: stream, Intent: guard.Continue}
	nameless := guard.Claim{User: user, ID: guard.DeriveID(user, "", stream), Stream: stream}
	n := w.node(rng.IntN(len(w.nodes)))
	for range 30 {
		w.ask(n, named, p)
		nameless.Intent = guard.Share
		if v, _ := w.ask(n, nameless, p); v.Outcome == guard.Known && rng.IntN(2) == 0 {
			nameless.Intent = guard.Start
			w.ask(n, nameless, p)
		}
		time.Sleep(time.Duration(rng.Int64N(int64(10 * time.Second))))
		if w.over() {
			break
		}
	}
	time.Sleep(silence)
}

func (w *world) losses() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.store.losses
}

func (l *link) setCut(cut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = cut
}
