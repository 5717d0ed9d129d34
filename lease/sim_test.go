package lease

import (
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"slices"
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
//     one that was replaced, where it lost that. A look is never admitted.
//  2. A viewer who plays is never refused, whatever he asks: manifests, media, some
//     of them in vain, some without a name. But for a guard of (1) where its node
//     was replaced or has late news of an ending before its start, or where the
//     store has come to hold what was over as in (3). One who was silent for longer
//     than a hidden tab may be.
//  3. A viewer of a user who keeps to the limit is never refused, but for ttl
//     after the store has come to hold what was over: a replica that missed a
//     release has taken over, or the first call after its clock was set back.
//  4. A playback that was revoked, or has lost its slot to another, stops within a
//     refresh period of when its node can ask the store, even if nobody tells it,
//     under whichever name it is asked for, unless the store lost that too.
//  5. Who is refused may start as soon as another has stopped on this node.
//  6. Nobody is answered by a policy other than the request's.
//  7. Where a start replaces others it is never refused, and what it replaced does
//     not come back but by starting anew, or when MaxMarks others were replaced
//     since. Two who start anew in turn do so twice each.
//  8. Once nothing fails any more, the store holds what is played and what was
//     played within ttl, and when nobody plays nothing, nor do the nodes. A viewer
//     has one guard, unless the store lost that, and a request without a name came
//     to a node that knew of none.
//  9. Who keeps a guard by explicit calls is never told that it is gone, as in (2).
//  10. What is told from memory was judged here, of an equal claim by an equal
//     policy, at most 2 s ago, and before there is room by itself.
//  11. Nobody is refused while a start may take a slot. Who has lost his slot to a start
//     since his guard was closed, or had lapsed, is told that.
//  12. A page that is loaded again and again plays within seconds, whatever guards
//     it has left behind, even if all news are lost.
//
// While nothing fails, also: nobody plays without a slot, or while his guard is closed, nor more than the limit,
// but for requests from before a release, which pass for no longer than the
// playback had its guard, and once within ttl. A doubted playback that asks at
// least every 4.5 s is never taken, and a start that doubts it is told within 11 s,
// or 16 s if others doubt it meanwhile. Nothing
// that delivers nothing keeps a slot, and what it replaced goes on.
//
// Where news are late a doubted playback whose node has lately asked may be taken
// from a viewer: both play until it stops as in (4).
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
	lateNews                    // of endings and doubts: minutes late, or lost
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
	kinds     = iota - 1
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
	newsTake  = 2 * time.Second           // at most
	hangUp    = 5 * time.Second           // after which a node hangs up who has closed his connections
	doubting  = 10 * time.Second          // how long a start waits for a doubted guard, and
	known     = 11 * time.Second          // until it is told, if no other doubts the same meanwhile, or
	knownLast = 16 * time.Second          // if others do
)

type world struct {
	t       *testing.T
	seed    uint64
	faults  fault
	begun   time.Time
	calm    atomic.Bool // no more faults
	away    atomic.Bool // the store is
	reclaim guard.Reclaim
	started atomic.Uint32 // nodes
	running sync.WaitGroup

	mu      sync.Mutex
	store   truth
	nodes   [3]*simNode
	playing map[string]map[guard.ID]bool
	viewers map[guard.ID]guard.ID  // whose playback it is too
	seen    map[guard.ID]time.Time // when a viewer last asked
	unsure  map[guard.ID]bool      // guards that the store lost, or a node granted or carried on alone
	told    map[memory]time.Time   // when what is told from memory is to be judged anew
	judged  map[question]bool
	freed   map[guard.ID]int     // the node on which a guard was released
	taken   map[guard.ID]ending  // guards whose playbacks were revoked, or replaced
	overdue map[memory]time.Time // when one of those has first asked so late that its node was to ask the store
	twice   map[guard.ID]bool    // viewers whose guard was lost, and of whom nobody knew it
	vacated map[guard.ID]bool    // guards that were closed or had lapsed when a start took their slots
	asked   map[memory]int       // requests for a playback on a node
	hanging map[guard.ID]int     // how many nodes are hanging a playback up
	hungUp  map[guard.ID]bool    // playbacks whose guards are closed, or may be
	closed  map[guard.ID]closing // guards that were closed
	swaps   map[string]int       // how often somebody of a user has replaced another
	trace   uint64
}

// question is what a claim is judged by, on one node.
type question struct {
	node  *link
	claim guard.Claim
	limit int
	times time.Duration
}

func questionOf(l *link, c guard.Claim, p guard.Policy) question {
	judged := guard.Claim{User: c.User, ID: c.ID, Stream: c.Stream, Device: c.Device, Labels: c.Labels, Client: c.Client}
	return question{l, judged, p.Limit, p.TTL}
}

// memory is what a node may remember of a playback.
type memory struct {
	node  *link
	id    guard.ID
	looks bool
}

// ending is that of a playback which is to stop.
type ending struct {
	at     time.Time
	losses int // of the store by then
}

// closing is that of a guard on a node.
type closing struct {
	node   *link
	losses int // of the store by then
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{
		t: t, seed: seed, begun: time.Now(),
		store:   newTruth(),
		playing: make(map[string]map[guard.ID]bool),
		viewers: make(map[guard.ID]guard.ID),
		seen:    make(map[guard.ID]time.Time),
		unsure:  make(map[guard.ID]bool),
		told:    make(map[memory]time.Time),
		judged:  make(map[question]bool),
		freed:   make(map[guard.ID]int),
		taken:   make(map[guard.ID]ending),
		overdue: make(map[memory]time.Time),
		twice:   make(map[guard.ID]bool),
		vacated: make(map[guard.ID]bool),
		asked:   make(map[memory]int),
		hanging: make(map[guard.ID]int),
		hungUp:  make(map[guard.ID]bool),
		closed:  make(map[guard.ID]closing),
		swaps:   make(map[string]int),
	}
	switch seed / 4 % 4 {
	case 2:
		w.reclaim = guard.ReclaimLapsed
	case 3:
		w.reclaim = guard.ReclaimOff
	}
	switch seed % 4 {
	case 1:
		w.faults = allFaults
	case 2:
		w.faults = fault(w.rand(99).Uint64()) & fault(w.rand(98).Uint64()) & allFaults
	case 3:
		w.faults = 1 << (seed / 4 % kinds)
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
	if os.Getenv("TELL") == fmt.Sprint(w.seed) {
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
	for n := range 2 {
		act(func(rng *rand.Rand) { w.sharing(rng, fmt.Sprint("sharing", n)) })
		act(func(rng *rand.Rand) { w.rival(rng, fmt.Sprint("sharing", n)) })
	}
	act(w.crowding)
	for range 4 {
		act(w.leaving)
	}
	act(w.reloading)
	for range 3 {
		act(w.twin)
	}
	for n := range 2 {
		act(func(rng *rand.Rand) { w.fighting(rng, n) })
		act(w.failing)
	}
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
		do(&w.store, user, 0, func(l *guard.Ledger, now time.Time) guard.Verdict { return l.Refresh(now, guard.ID{}, policy) })
	}
	w.mu.Unlock()
	time.Sleep(silence + sweepEvery)
	for user, l := range w.store.ledgers {
		if !l.Forget(w.store.now()) {
			w.wrong("when all is over the store has %+v of %s", l.List(w.store.now()), user)
		}
	}
	for _, n := range w.nodes {
		leases, denials := n.Size()
		left := []int{leases, denials, n.named.Size(), n.looks.Size(), n.speaks.Size(), n.trials.Size(), n.hangUps.Size(), n.served.Size(), len(n.waiting.starts), len(n.waiting.users), len(n.waiting.guards)}
		if slices.Max(left) > 0 {
			w.wrong("when all is over a node has so many leases, denials, names, looks, who speaks for whom, trials, who is hung up, who serves, and who waits: %v", left)
		}
		n.Close()
	}
}

// converged checks that the store holds what is played and what was lately, one
// guard for each viewer.
func (w *world) converged() {
	w.mu.Lock()
	defer w.mu.Unlock()
	viewers := make(map[guard.ID]guard.ID)
	for user, l := range w.store.ledgers {
		for _, g := range l.List(w.store.now()) {
			viewer := w.viewer(g.ID)
			if since := time.Since(w.seen[viewer]); since > silence && !w.store.maybeWrong(user) {
				w.wrong("%s was last played %v ago by %s and still has its slot", g.ID, since, user)
			}
			if other, two := viewers[viewer]; two && !w.store.maybeWrong(user) && !w.twice[viewer] {
				w.wrong("one viewer, %s, has both %v and %v", user, g.ID, other)
			}
			viewers[viewer] = g.ID
		}
	}
	for user, playing := range w.playing {
		for id := range playing {
			_, freed := w.freed[id] // on another node
			if _, its := viewers[w.viewer(id)]; !its && !(w.has(lateNews) && (freed || time.Since(w.taken[id].at) < policy.Interval/3+3*time.Second)) {
				w.wrong("%s plays %v, which the store does not hold", user, id)
			}
		}
	}
	if n := w.swaps["fighting"]; n > 1+2*guard.MaxReturns && w.faults == 0 {
		w.wrong("two have thrown each other out %d times", n)
	}
}

// viewer is the playback that another one is part of, or that itself.
func (w *world) viewer(id guard.ID) guard.ID {
	if of, ok := w.viewers[id]; ok {
		return of
	}
	return id
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
	w.judged[questionOf(l, c, p)] = true
	w.tell("store: %s %v intent %d: %v, held %d", c.User, c.ID, c.Intent, v.Outcome, v.Held)
	for n, id := range v.Replaced {
		w.taken[id] = ending{time.Now(), w.store.losses}
		delete(w.vacated, id)
		if n < v.Taken && p.AtLimit == guard.Reject {
			w.vacated[id] = true
		}
		if n < v.Taken && p.Reclaim == guard.ReclaimLapsed { // a hidden tab does not count as playing
			delete(w.playing[c.User], id)
		}
		w.tell("store: %s loses %v", c.User, id)
	}
	w.refused(c, p, v)
	delete(w.closed, v.Guard.ID)
	if v.Outcome != guard.Admitted {
		return
	}
	id := v.Guard.ID
	resumes := c.Intent == guard.Resume || id == c.For
	if _, freed := w.freed[id]; freed && resumes {
		w.wrong("%s has %s restored, which was released", c.User, id)
	}
	e, taken := w.taken[id]
	delete(w.freed, id)
	delete(w.taken, id)
	if c.Nameless && id == c.ID && w.unsure[w.viewer(id)] && !w.knows(l, c, p) {
		w.twice[w.viewer(id)] = true
	}
	if of := w.viewer(id); w.vacated[of] { // by a request without a name
		delete(w.taken, of)
		delete(w.vacated, of)
	}
	delete(w.vacated, id)
	if len(v.Replaced) > v.Taken {
		w.swaps[c.User]++
	}
	restored := resumes && (w.unsure[id] || taken && e.losses < w.store.losses)
	if v.Held > p.Limit && !restored {
		w.wrong("%s is admitted to %d of %d with intent %d", c.User, v.Held, p.Limit, c.Intent)
	}
	if c.Intent == guard.Look && id != c.For {
		w.wrong("%s is admitted to look", c.User)
	}
}

// refused judges that the store has refused somebody.
func (w *world) refused(c guard.Claim, p guard.Policy, v guard.Verdict) {
	if c.Anew {
		delete(w.vacated, c.ID)
	}
	e := w.taken[c.ID]
	vacated := w.vacated[c.ID] && !c.Nameless && e.losses == w.store.losses && time.Since(e.at) < p.TTL
	switch room := w.store.room(c.User, p); {
	case v.Outcome == guard.Rejected && !v.Lately && room > 0:
		w.wrong("%s is refused %v where there is room for %d", c.User, c.ID, room)
	case v.Outcome == guard.Replaced && vacated && room > 0:
		w.wrong("%s is not let back to %v where there is room for %d", c.User, c.ID, room)
	case v.Outcome == guard.Rejected && vacated:
		w.wrong("%s is not told that the slot of %v was taken", c.User, c.ID)
	}
}

// knows reports whether a node knows in whose name to ask.
func (w *world) knows(l *link, c guard.Claim, p guard.Policy) bool {
	for _, n := range w.nodes {
		if at, there := n.leases.get(c.ID); n.link == l && there {
			return at.by == byAnother && n.certain(&at, &p, n.now())
		}
	}
	return false
}

// ask is a request of a playback, which is delivered.
func (w *world) ask(rng *rand.Rand, n *simNode, c guard.Claim, p guard.Policy) (guard.Verdict, error) {
	v, trial, err := w.begin(context.Background(), rng, n, c, p)
	trial.End(true)
	return v, err
}

// begin is a request of a playback, as the gate makes it.
func (w *world) begin(ctx context.Context, rng *rand.Rand, n *simNode, c guard.Claim, p guard.Policy) (v guard.Verdict, trial *Trial, err error) {
	n.link.pauseBy(rng.Int64N, time.Microsecond)
	w.asks(n, c.ID)
	held, trial, known := n.Known(&c, &p)
	if known {
		v = guard.Verdict{Outcome: guard.Known, Guard: guard.Guard{ID: c.ID}, Held: held, Limit: p.Limit}
	} else {
		if stream, ok := n.LookedAt(c.ID); ok && c.Keeps {
			c.Stream = stream
		}
		v, trial, err = w.waitOut(ctx, rng, n, c, p)
	}
	n.link.pauseBy(rng.Int64N, time.Microsecond)
	w.mu.Lock()
	defer w.mu.Unlock()
	h := fnv.New64a()
	binary.Write(h, binary.LittleEndian, time.Since(w.begun))
	told := v.Outcome
	if told == guard.Admitted { // which any of those is told who share a call
		told = guard.Refreshed
	}
	h.Write(append(c.ID[:], byte(told)))
	w.trace += h.Sum64()
	w.tell("%s %v intent %d at %d: %v, held %d %v", c.User, c.ID, c.Intent, slices.Index(w.nodes[:], n), v.Outcome, v.Held, err)
	if err == nil && v.Limit != p.Limit {
		w.wrong("%s is judged by a limit of %d, not %d", c.User, v.Limit, p.Limit)
	}
	_, taken := w.taken[w.viewer(c.ID)]
	at, freed := w.freed[c.ID] // another node has not heard of it perhaps
	if known && w.faults == 0 && !w.holds(c) && !taken && !(freed && w.nodes[at] != n) {
		w.wrong("%s plays %s without a slot", c.User, c.ID)
	}
	if g := w.store.find(c.User, c.ID); known && w.faults == 0 && g != nil && g.Closed {
		w.wrong("%s plays %s, whose guard is closed", c.User, c.ID)
	}
	if err == nil && v.Outcome.Pass() && c.Intent != guard.Look {
		w.goesOn(n, c, v)
	}
	for _, g := range v.InTheWay {
		if at, freed := w.freed[g.ID]; v.Repeated && freed && w.nodes[at] == n {
			w.wrong("%s is refused although %s was released here", c.User, g.ID)
		}
		at, closed := w.closed[g.ID]
		if is := w.store.find(c.User, g.ID); v.Repeated && closed && at.node == n.link && at.losses == w.store.losses && !g.Closed && is != nil && is.Closed {
			w.wrong("%s is refused although %s was closed here", c.User, g.ID)
		}
	}
	return v, trial, err
}

// goesOn judges that a playback goes on which was revoked or replaced. Its first
// request for longer than a refresh period has the node ask.
func (w *world) goesOn(n *simNode, c guard.Claim, v guard.Verdict) {
	e, taken := w.taken[w.viewer(c.ID)]
	m := memory{n.link, c.ID, false}
	if failed := n.link.reachable(c.User); failed.After(e.at) {
		e.at = failed
	}
	if !taken || c.Anew || e.losses != w.store.losses || time.Since(e.at) < policy.Interval/3 {
		delete(w.overdue, m)
		return
	}
	first, again := w.overdue[m]
	if !again || first.Before(e.at) {
		w.overdue[m] = time.Now()
	} else if late := time.Since(first); late > 3*time.Second+4*n.link.Timeout() {
		w.wrong("%s is %v under %s %v after it should have stopped", c.User, v.Outcome, c.ID, late)
	}
}

// waitOut is what the gate does with a start that is in doubt.
func (w *world) waitOut(ctx context.Context, rng *rand.Rand, n *simNode, c guard.Claim, p guard.Policy) (v guard.Verdict, trial *Trial, err error) {
	ask := func() {
		asked := time.Now()
		v, trial, err = n.Ask(ctx, c, p)
		w.toldAgain(n, c, p, asked, v)
	}
	ask()
	if err != nil || v.Outcome != guard.Doubted {
		return v, trial, err
	}
	news, leave, ok := n.Wait(&c, &v)
	if !ok {
		v.Outcome = guard.Rejected
		return v, nil, nil
	}
	defer leave()
	c.Waited = true
	last := time.NewTimer(c.Patience + 5*time.Second)
	defer last.Stop()
	for heard := news(); err == nil && v.Outcome == guard.Doubted; {
		next := time.NewTimer(v.FreeIn)
		select {
		case <-next.C:
		case <-heard:
		case <-last.C:
			v.Outcome = guard.Rejected
			return v, nil, nil
		}
		next.Stop()
		time.Sleep(time.Duration(rng.IntN(1_000_000))) // who waits for the same is not woken in any order
		heard = news()
		ask()
	}
	return v, trial, err
}

// toldAgain looks at what is told from memory.
func (w *world) toldAgain(n *simNode, c guard.Claim, p guard.Policy, asked time.Time, v guard.Verdict) {
	w.mu.Lock()
	defer w.mu.Unlock()
	m := memory{n.link, c.ID, v.Outcome == guard.Vacant}
	if !v.Repeated {
		delete(w.told, m)
		return
	}
	if (v.Outcome == guard.Rejected || m.looks) && !w.judged[questionOf(n.link, c, p)] {
		w.wrong("%s is told what another claim was", c.User)
	}
	if m.looks && c.Intent != guard.Look {
		w.wrong("%s is told what it is to look", c.User)
	}
	lasts := 2 * time.Second
	if !m.looks {
		lasts = min(lasts, v.FreeIn)
	}
	if anew, again := w.told[m]; !again {
		w.told[m] = asked.Add(lasts)
	} else if asked.Sub(anew) > time.Millisecond {
		w.wrong("%s is told what was over %v ago", c.User, asked.Sub(anew))
	}
}

func (w *world) asks(n *simNode, id guard.ID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked[memory{n.link, id, false}]++
	w.seen[w.viewer(id)] = time.Now()
}

// holds reports whether the viewer of a playback has a slot.
func (w *world) holds(c guard.Claim) bool {
	for _, g := range w.store.ledger(c.User).List(w.store.now()) {
		if w.viewer(g.ID) == w.viewer(c.ID) {
			return true
		}
	}
	return false
}
