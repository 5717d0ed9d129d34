package lease

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/memstore"
)

// truth is the store of a simulation. Its clock can be set, and the ledgers of
// a moment ago can come back, as when a replica takes over.
type truth struct {
	ledgers    map[string]*guard.Ledger
	journal    map[string][]entry
	ahead      time.Duration // of its clock
	operations int
	losses     int                  // how often it has lost what it knew
	stale      map[string]bool      // users of whom nothing was asked since the clock was set back, or what was lost came back
	upset      map[string]time.Time // when a ledger last took for true what was over
}

// entry is a call that has happened.
type entry struct {
	at time.Time
	do func(*guard.Ledger)
}

func newTruth() truth {
	return truth{
		ledgers: make(map[string]*guard.Ledger),
		journal: make(map[string][]entry),
		stale:   make(map[string]bool),
		upset:   make(map[string]time.Time),
	}
}

func (s *truth) now() time.Time { return time.Now().Add(s.ahead).Truncate(time.Millisecond) }

func (s *truth) ledger(user string) *guard.Ledger {
	if s.ledgers[user] == nil {
		s.ledgers[user] = new(guard.Ledger)
	}
	return s.ledgers[user]
}

func (s *truth) flush() {
	clear(s.ledgers)
	clear(s.journal)
	s.losses++
}

// failOver brings back the ledgers as they were before the last moments.
func (s *truth) failOver(missed time.Duration) {
	clear(s.ledgers)
	for user, journal := range s.journal {
		for n, e := range journal {
			if time.Since(e.at) < missed {
				s.journal[user] = journal[:n]
				break
			}
			e.do(s.ledger(user))
		}
	}
	s.losses++
	s.doubt()
}

func (s *truth) setClock(by time.Duration) {
	s.ahead += by
	if by > 0 {
		s.losses++ // of what is over now
		return
	}
	s.doubt()
}

func (s *truth) doubt() {
	for user := range s.ledgers {
		s.stale[user] = true
	}
}

// find is a user's guard as the store has it, nil if it has none.
func (s *truth) find(user string, id guard.ID) *guard.Guard {
	guards := s.ledger(user).List(s.now())
	for i := range guards {
		if guards[i].ID == id {
			return &guards[i]
		}
	}
	return nil
}

// room is how many slots a start may have, free ones and those that it may take.
func (s *truth) room(user string, p guard.Policy) int {
	room := p.Limit
	for _, g := range s.ledger(user).List(s.now()) {
		if !p.MayTake(s.now(), &g) {
			room--
		}
	}
	return room
}

// maybeWrong reports whether a user's ledger may hold what is over.
func (s *truth) maybeWrong(user string) bool {
	return s.stale[user] || time.Since(s.upset[user]) < silence
}

// do is one node's call on a user's ledger. The world's lock is held.
func do[V any](s *truth, user string, node uint8, call func(*guard.Ledger, time.Time) V) V {
	s.operations++
	now := s.now()
	if s.stale[user] { // from now on it has only ttl to live
		delete(s.stale, user)
		s.upset[user] = time.Now()
	}
	by := func(l *guard.Ledger) V {
		l.Node = node
		return call(l, now)
	}
	s.journal[user] = append(s.journal[user], entry{time.Now(), func(l *guard.Ledger) { by(l) }})
	return by(s.ledger(user))
}

// simNode is a keeper whose way to the store is bad and whose process may stand
// still.
type simNode struct {
	*Keeper
	link *link
}

func (w *world) start(who uint64) *simNode {
	local := memstore.New()
	local.Close() // the history is too short to sweep it
	l := &link{w: w, node: uint8(w.started.Add(1)), rng: w.rand(who), failed: make(map[string]time.Time), told: make(map[guard.ID]bool)}
	return &simNode{running(newKeeper(l, alone{local, l}, nil, MaxLeases, time.Now), shards), l}
}

// alone is what a node counts by itself.
type alone struct {
	*memstore.Store
	l *link
}

func (s alone) Acquire(ctx context.Context, c guard.Claim, p guard.Policy) (guard.Verdict, error) {
	v, err := s.Store.Acquire(ctx, c, p)
	w := s.l.w
	w.mu.Lock()
	defer w.mu.Unlock()
	w.judged[questionOf(s.l, c, p)] = true
	w.unsure[c.ID] = true
	if v.Outcome == guard.Admitted {
		w.unsure[v.Guard.ID] = true
		delete(w.freed, v.Guard.ID)
		delete(w.closed, v.Guard.ID)
	}
	return v, err
}

// link is a node's way to the store.
type link struct {
	w    *world
	node uint8

	mu     sync.Mutex
	rng    *rand.Rand
	news   func(guard.ID)
	cut    bool
	thaws  time.Time            // when the process goes on that stands still
	failed map[string]time.Time // the last call of a user that failed
	told   map[guard.ID]bool    // that a playback has ended, since it was started
}

func (l *link) draw(n int64) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rng.Int64N(n)
}

// pause waits for up to d, and if the process stands still by then until it
// goes on. No two ever wake in the same nanosecond.
func (l *link) pause(d time.Duration) (stoodStill bool) { return l.pauseBy(l.draw, d) }

// pauseBy is pause for one of those who may do so at the same moment.
func (l *link) pauseBy(draw func(int64) int64, d time.Duration) (stoodStill bool) {
	time.Sleep(time.Duration(draw(int64(d))))
	for {
		l.mu.Lock()
		still := time.Until(l.thaws)
		l.mu.Unlock()
		if still <= 0 {
			return stoodStill
		}
		stoodStill = true
		time.Sleep(still + time.Duration(draw(int64(time.Millisecond))))
	}
}

// carry has the store do f, once, never or twice, and says whether the answer
// has arrived.
func (l *link) carry(f func()) error {
	trouble := int64(1 << 40)
	if l.w.has(badLines) && !l.w.calm.Load() {
		trouble = 30
	}
	there, back := latency, latency
	if l.w.late() {
		there, back = muchOfIt*3/4, muchOfIt/4
	}
	stoodStill := l.pause(there)
	l.mu.Lock()
	cut := l.cut
	l.mu.Unlock()
	if stoodStill || cut || l.w.away.Load() || l.draw(trouble) == 0 {
		time.Sleep(l.Timeout())
		return errAway
	}
	l.w.mu.Lock()
	f()
	if l.draw(trouble) == 0 {
		f()
	}
	l.w.mu.Unlock()
	if l.pause(back) && l.draw(2) == 0 || l.draw(trouble) == 0 {
		time.Sleep(l.Timeout())
		return errAway
	}
	return nil
}

// Timeout is how long a call takes at most, but for a node that stands still.
func (l *link) Timeout() time.Duration {
	if l.w.has(tardy) {
		return muchOfIt
	}
	return patience
}

// missed notes that a user's call has failed.
func (l *link) missed(user string, id guard.ID) {
	l.mu.Lock()
	l.failed[user] = time.Now()
	l.mu.Unlock()
	l.w.mu.Lock()
	l.w.unsure[id] = true
	l.w.mu.Unlock()
}

func (l *link) starts(id guard.ID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.told, id)
}

func (l *link) isTold(id guard.ID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.told[id]
}

// reachable is since when a user's calls have not failed on this node.
func (l *link) reachable(user string) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.thaws.After(l.failed[user]) {
		return l.thaws
	}
	return l.failed[user]
}

func (l *link) Acquire(ctx context.Context, c guard.Claim, p guard.Policy) (guard.Verdict, error) {
	a := l.AcquireAll(ctx, []guard.Request{{Claim: c, Policy: p}})[0]
	return a.Verdict, a.Err
}

func (l *link) AcquireAll(_ context.Context, requests []guard.Request) []guard.Answer {
	answers := make([]guard.Answer, len(requests))
	err := l.carry(func() {
		for i, r := range requests {
			answers[i].Verdict = do(&l.w.store, r.Claim.User, l.node, func(ledger *guard.Ledger, now time.Time) guard.Verdict {
				return ledger.Acquire(now, r.Claim, r.Policy)
			})
			l.w.acquired(l, r.Claim, r.Policy, answers[i].Verdict)
		}
	})
	for i, r := range requests {
		l.w.mu.Lock() // what its node remembers is judged anew, whoever has asked and perhaps gone
		delete(l.w.told, memory{l, r.Claim.ID, false})
		delete(l.w.told, memory{l, r.Claim.ID, true})
		l.w.mu.Unlock()
		l.tell(answers[i].Verdict)
		if err != nil {
			answers[i] = guard.Answer{Err: err}
			l.missed(r.Claim.User, r.Claim.ID)
		}
	}
	return answers
}

func (l *link) Refresh(_ context.Context, user string, id guard.ID, p guard.Policy) (guard.Verdict, error) {
	v, err := call(l, user, id, func(ledger *guard.Ledger, now time.Time) guard.Verdict { return ledger.Refresh(now, id, p) })
	l.tell(v)
	return v, err
}

func (l *link) CloseGuard(_ context.Context, user string, id guard.ID) (bool, error) {
	var closed atomic.Bool // by a call or its repetition; a failover repeats it later
	_, err := call(l, user, id, func(ledger *guard.Ledger, now time.Time) bool {
		if ledger.CloseGuard(now, id) {
			closed.Store(true)
		}
		return closed.Load()
	})
	if closed.Load() {
		l.publish(id)
	}
	return closed.Load() && err == nil, err
}

func (l *link) Undo(_ context.Context, user string, id guard.ID, replaced []guard.ID) (bool, error) {
	var undone atomic.Bool
	_, err := call(l, user, id, func(ledger *guard.Ledger, now time.Time) bool {
		if ledger.Undo(now, id, replaced) {
			undone.Store(true)
		}
		for _, id := range replaced { // their playbacks start like any other
			delete(l.w.vacated, id)
		}
		return undone.Load()
	})
	if undone.Load() {
		l.publish(id)
	}
	return undone.Load() && err == nil, err
}

func (l *link) Release(_ context.Context, user string, id guard.ID, p guard.Policy) (bool, error) {
	defer l.publish(id)
	return call(l, user, id, func(ledger *guard.Ledger, now time.Time) bool { return ledger.Release(now, id, p) })
}

func (l *link) Revoke(_ context.Context, user string, id guard.ID, p guard.Policy) (bool, error) {
	defer l.publish(id)
	return call(l, user, id, func(ledger *guard.Ledger, now time.Time) bool { return ledger.Revoke(now, id, p) })
}

func (l *link) List(_ context.Context, user string) ([]guard.Guard, error) {
	return call(l, user, guard.ID{}, func(ledger *guard.Ledger, now time.Time) []guard.Guard { return ledger.List(now) })
}

func call[V any](l *link, user string, id guard.ID, f func(*guard.Ledger, time.Time) V) (v V, _ error) {
	if err := l.carry(func() { v = do(&l.w.store, user, l.node, f) }); err != nil {
		l.missed(user, id)
		var none V
		return none, err
	}
	return v, nil
}

func (l *link) Watch(ctx context.Context, heard func(guard.News)) {
	l.mu.Lock()
	l.news = func(id guard.ID) { heard(guard.News{ID: id}) }
	l.mu.Unlock()
	<-ctx.Done()
}

// Tell is for starts that wait, of which there are none here.
func (l *link) Tell(context.Context, guard.News) error { return nil }

// tell publishes what a verdict has news of.
func (l *link) tell(v guard.Verdict) {
	for _, ids := range [][]guard.ID{v.Replaced, v.Doubted} {
		for _, id := range ids {
			l.publish(id)
		}
	}
	if v.Answered {
		l.publish(v.Guard.ID)
	}
}

// publish tells all nodes within newsTake, some of them twice; or where news are
// late some of them, some time.
func (l *link) publish(id guard.ID) {
	l.w.mu.Lock()
	nodes := l.w.nodes
	l.w.mu.Unlock()
	late := l.w.has(lateNews)
	for _, n := range nodes {
		for again := !late || l.draw(2) == 0; again; again = l.draw(2) == 0 {
			delay := time.Duration(l.draw(int64(newsTake)))
			if late && l.draw(3) == 0 {
				delay = time.Duration(l.draw(int64(3 * time.Minute)))
			}
			l.w.running.Go(func() {
				time.Sleep(delay)
				n.link.mu.Lock()
				news := n.link.news
				n.link.told[id] = true
				n.link.mu.Unlock()
				if news != nil {
					news(id)
				}
			})
		}
	}
}

// running has a Keeper run, and sweep so many shards of its leases at once.
func running(k *Keeper, together int) *Keeper {
	k.run(together)
	return k
}
