// Package lease remembers on one node what the store said of a playback, so
// that a playing viewer costs the store three calls a minute and a request in
// between costs nothing.
//
// A lease never admits anybody: only the store does. It only saves asking again
// about a playback that the store has admitted, and while it lasts the guard's
// slot is taken in the store.
package lease

import (
	"context"
	"fmt"
	"hash/maphash"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/puzpuzpuz/xsync/v4"
	"golang.org/x/sync/singleflight"

	"github.com/streamguard/streamguard/guard"
)

// Bounds on what a Keeper remembers: at most 86 bytes a lease, 360 MB in all,
// and 300 MB of refusals. Beyond them a playback is not remembered: its
// requests ask the store each, and are answered the same.
const (
	MaxLeases  = 1 << 22
	MaxDenials = 1 << 16

	// Guards that refusals name: up to 1000 each, with 1200 bytes at most.
	maxInTheWay = 1 << 18
)

const (
	denialTime   = 2 * time.Second        // how long a refusal is remembered
	moveInterval = time.Second            // at least this between a guard's moves to other streams
	sweepEvery   = 10 * time.Second       // what is over is forgotten this much later at most
	resumeMargin = time.Second            // a refresh this much before the guard's end comes in time
	refreshers   = 2                      // batches of refreshes under way at once
	maxBatch     = 64                     // refreshes in a batch: Redis is done with it in half a millisecond
	linger       = 100 * time.Millisecond // how long a refresh waits for others: it has a minute to spare
	maxLeft      = 1024                   // calls that requests may leave before the end
	queued       = 8192                   // refreshes waiting; one more is tried again later
)

// Keeper is a guard.Store that remembers. Create it with New, stop it with
// Close. Check is what requests for media ask; the methods of the store itself
// are for explicit calls.
type Keeper struct {
	guard.Store
	local   guard.Store // counts on this node while Store is away
	onError func(error)

	start      time.Time
	streamSeed maphash.Seed
	leases     *table
	denials    *xsync.Map[guard.ID, denial]
	inTheWay   atomic.Int64 // guards that denials name
	ended      endings
	asking     singleflight.Group
	left       chan struct{} // one for each call under way that a request did not wait for
	due        chan guard.Request

	cancel  context.CancelFunc
	running sync.WaitGroup
}

// lease is what is remembered of a guard. There is no string in it: what a
// refresh needs, the request brings along.
type lease struct {
	at         moment // when the store was last asked
	ttl        uint32 // milliseconds that the guard exists from then on, never 0
	stream     uint32 // hash of its stream
	held       uint16 // guards the user held then
	refreshing bool
	by         grant
}

// grant is who says that a playback may go on.
type grant uint8

const (
	byStore   grant = iota
	byNode          // this one, while the store did not answer, which has not heard of it
	byAnother       // the store, for there is another playback's guard
)

// moment is in milliseconds since the Keeper's start. It starts again every 49
// days: since tells which of two came first if they are not half of that apart.
type moment uint32

func (m moment) since(earlier moment) time.Duration {
	return time.Duration(int32(m-earlier)) * time.Millisecond
}

// denial is a refusal that is remembered.
type denial struct {
	at      moment
	starts  bool   // whether a start was refused, which may do more than others
	stream  string // another one may be allowed,
	policy  guard.Policy
	verdict *guard.Verdict
}

// New returns a Keeper in front of the store. local counts on this node alone
// for policies that want it while the store cannot answer; onError, which may
// be nil, hears of each time it cannot and nobody else is told.
func New(store, local guard.Store, onError func(error)) *Keeper {
	return newKeeper(store, local, onError, MaxLeases, 1)
}

// newKeeper returns a Keeper that sweeps so many shards of its leases at once.
func newKeeper(store, local guard.Store, onError func(error), maxLeases, together int) *Keeper {
	if onError == nil {
		onError = func(error) {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	k := &Keeper{
		Store:      store,
		local:      local,
		onError:    onError,
		start:      time.Now().Add(-time.Millisecond), // when no guard has ended
		streamSeed: maphash.MakeSeed(),
		leases:     newTable(maxLeases),
		denials:    xsync.NewMap[guard.ID, denial](),
		left:       make(chan struct{}, maxLeft),
		due:        make(chan guard.Request, queued),
		cancel:     cancel,
	}
	for range refreshers {
		k.running.Go(func() { k.refreshDue(ctx) })
	}
	k.running.Go(func() { k.sweep(ctx, together) })
	if w, ok := store.(guard.Watcher); ok {
		k.running.Go(func() { w.Watch(ctx, k.forget) })
	}
	return k
}

// Size is how many leases and refusals are remembered.
func (k *Keeper) Size() (leases, denials int) { return k.leases.len(), k.denials.Size() }

// Close stops the Keeper's goroutines and waits for them. Nothing is lost with
// it: all truth is in the store.
func (k *Keeper) Close() error {
	k.cancel()
	k.running.Wait()
	return nil
}

// Check is Acquire for a request of a playback that may be known: then the
// outcome is Known and the store is not asked, or asked later.
func (k *Keeper) Check(ctx context.Context, c guard.Claim, p guard.Policy) (guard.Verdict, error) {
	if held, ok := k.Known(&c, &p); ok {
		return guard.Verdict{Outcome: guard.Known, Guard: guard.Guard{ID: c.ID}, Held: held, Limit: p.Limit}, nil
	}
	now := k.now()
	if d, ok := k.denials.Load(c.ID); ok && now.since(d.at) < denialTime && d.answers(&c, &p) && !k.outdated(d) {
		v := *d.verdict
		v.FreeIn = max(v.FreeIn-now.since(d.at), time.Second)
		v.Repeated = true
		return v, nil
	}
	return k.ask(ctx, c, p)
}

// answers reports whether a claim would be refused like the one before.
func (d *denial) answers(c *guard.Claim, p *guard.Policy) bool {
	return d.stream == c.Stream && (d.starts || !c.Intent.Starts()) && reflect.DeepEqual(&d.policy, p)
}

// outdated reports whether any of the guards in the way has ended since.
func (k *Keeper) outdated(d denial) bool {
	return slices.ContainsFunc(d.verdict.InTheWay, func(g guard.Guard) bool { return k.endedSince(g.ID, d.at) })
}

func (k *Keeper) endedSince(id guard.ID, at moment) bool { return k.ended.since(id, at, k.now()) }

// Keep is Refresh for a sign of life of a playback that may be known: then the
// outcome is Known and the store is not asked, or asked later.
func (k *Keeper) Keep(ctx context.Context, c guard.Claim, p guard.Policy) (guard.Verdict, error) {
	if held, ok := k.Known(&c, &p); ok {
		return guard.Verdict{Outcome: guard.Known, Held: held, Limit: p.Limit}, nil
	}
	return k.Refresh(ctx, c.User, c.ID, p)
}

// Known is the part of Check that most requests need: whether their playback is
// known, and how many guards its user held lately.
func (k *Keeper) Known(c *guard.Claim, p *guard.Policy) (held int, ok bool) {
	l, ok := k.leases.get(c.ID)
	if !ok {
		return 0, false
	}
	age := k.now().since(l.at)
	if age >= l.serves(p) {
		return 0, false
	}
	// The lease may be of a policy with shorter times.
	if !l.refreshing && (age >= refreshAfter(c.ID, min(p.Interval, l.lives())) || c.Stream != "" && l.stream != k.streamHash(c.Stream) && age >= moveInterval) {
		k.refreshSoon(*c, *p)
	}
	return int(l.held), true
}

// lives is how long from l.at on there is a guard.
func (l *lease) lives() time.Duration { return time.Duration(l.ttl) * time.Millisecond }

// serves is how long from l.at on the guard has its slot for certain. Where
// lapsed guards may lose theirs, that is while it is active.
func (l *lease) serves(p *guard.Policy) time.Duration {
	if p.ReclaimLapsed {
		return min(p.Interval, l.lives())
	}
	return l.lives()
}

// refreshAfter is a third of the interval, or up to a tenth less: playbacks
// that started together do not refresh together for long.
func refreshAfter(id guard.ID, interval time.Duration) time.Duration {
	third := interval / 3
	return third - third/10*time.Duration(id[15])/256
}

// ask acquires a guard, once for all requests that ask the same meanwhile: one
// of them is admitted, for the others the guard is there. A request that gives
// up leaves the call to the others.
func (k *Keeper) ask(ctx context.Context, c guard.Claim, p guard.Policy) (guard.Verdict, error) {
	if err := ctx.Err(); err != nil { // an answer at once would race it
		return guard.Verdict{}, err
	}
	ended := k.ended.of(c.ID).Load() // what was asked before is no answer to who starts after
	key := fmt.Sprint(c.ID, c.Intent, ended, p, c.Stream)
	result := k.asking.DoChan(key, func() (any, error) {
		v, err := k.acquire(context.WithoutCancel(ctx), c, p)
		return &common{verdict: v}, err
	})
	select {
	case r := <-result:
		if r.Err != nil {
			return guard.Verdict{}, r.Err
		}
		s := r.Val.(*common)
		v := s.verdict
		if s.taken.Swap(true) && v.Outcome == guard.Admitted {
			v.Outcome = guard.Refreshed
		}
		return v, nil
	case <-ctx.Done():
		// A client that resets its streams as fast as it opens them would leave
		// any number of calls behind; servers bound that of requests.
		select {
		case k.left <- struct{}{}:
			go func() {
				<-result
				<-k.left
			}()
		default:
			<-result
		}
		return guard.Verdict{}, ctx.Err()
	}
}

// common is a verdict for several requests.
type common struct {
	verdict guard.Verdict
	taken   atomic.Bool // by one of them
}

func (k *Keeper) acquire(ctx context.Context, c guard.Claim, p guard.Policy) (guard.Verdict, error) {
	at := k.now()
	v, err := k.Acquire(ctx, c, p)
	if err == nil {
		return v, nil
	}
	if v, err = k.away(ctx, c, p, err); err == nil {
		k.remember(at, c, p, v, byNode)
	}
	return v, err
}

// away answers for the store that could not, if the policy wants this node to
// count by itself.
func (k *Keeper) away(ctx context.Context, c guard.Claim, p guard.Policy, err error) (guard.Verdict, error) {
	if !p.CountLocally {
		return guard.Verdict{}, err
	}
	k.onError(err)
	return k.local.Acquire(ctx, c, p)
}

// aloneFor is for how long this node has counted a playback by itself.
func (k *Keeper) aloneFor(ctx context.Context, c guard.Claim, p guard.Policy) time.Duration {
	v, err := k.local.Refresh(ctx, c.User, c.ID, p)
	if err != nil || v.Outcome != guard.Refreshed {
		return 0
	}
	return v.Guard.ExpiresAt.Sub(v.Guard.CreatedAt) - p.Interval
}

// forgetLocal has this node no longer count a playback that the store knows
// of: neither beside it now, nor when the store is away again.
func (k *Keeper) forgetLocal(user string, id guard.ID) {
	k.local.Release(context.Background(), user, id, guard.Policy{})
}

// Acquire implements guard.Store.
func (k *Keeper) Acquire(ctx context.Context, c guard.Claim, p guard.Policy) (guard.Verdict, error) {
	at := k.now()
	v, err := k.Store.Acquire(ctx, c, p)
	if err == nil {
		k.forgetLocal(c.User, c.ID)
		k.remember(at, c, p, v, byStore)
	}
	return v, err
}

// Release implements guard.Store. Who says goodbye may be gone before the answer.
func (k *Keeper) Release(ctx context.Context, user string, id guard.ID, p guard.Policy) (bool, error) {
	found, err := k.Store.Release(context.WithoutCancel(ctx), user, id, p)
	k.forget(id)
	k.forgetLocal(user, id)
	return found, err
}

// Revoke implements guard.Store.
func (k *Keeper) Revoke(ctx context.Context, user string, id guard.ID, p guard.Policy) (bool, error) {
	found, err := k.Store.Revoke(ctx, user, id, p)
	k.forget(id)
	k.forgetLocal(user, id)
	return found, err
}

// forget has the next request of a playback ask the store, and of those that
// it stood in the way of.
func (k *Keeper) forget(id guard.ID) {
	k.ended.of(id).Store(uint32(k.now()))
	k.leases.delete(id)
	k.forgetDenial(id)
}

// remember keeps in mind the answer to what was asked at a moment.
func (k *Keeper) remember(at moment, c guard.Claim, p guard.Policy, v guard.Verdict, by grant) {
	for _, id := range v.Replaced {
		k.forget(id)
	}
	if k.endedSince(c.ID, at) { // it says nothing about what has started since
		k.leases.update(c.ID, func(l *lease) { l.refreshing = false })
		return
	}
	switch v.Outcome {
	case guard.Admitted, guard.Refreshed:
		k.forgetDenial(c.ID)
		if v.Guard.ID != c.ID {
			by = byAnother
		}
		k.leases.put(c.ID, lease{at: at, ttl: milliseconds(p.TTL), stream: k.streamHash(v.Guard.Stream), held: uint16(v.Held), by: by})
		if k.endedSince(c.ID, at) { // just now
			k.leases.delete(c.ID)
		}
	case guard.Released:
		k.leases.delete(c.ID)
	case guard.Rejected, guard.Revoked:
		k.leases.delete(c.ID)
		if k.denials.Size() < MaxDenials && k.inTheWay.Load() < maxInTheWay {
			k.inTheWay.Add(int64(len(v.InTheWay)))
			d := denial{at, c.Intent.Starts(), strings.Clone(c.Stream), p, detached(v)}
			if before, there := k.denials.LoadAndStore(c.ID, d); there {
				k.inTheWay.Add(-int64(len(before.verdict.InTheWay)))
			}
		}
	}
}

// detached is a verdict with copies of the names in it, which are parts of all
// that the store has answered.
func detached(v guard.Verdict) *guard.Verdict {
	v.InTheWay = slices.Clone(v.InTheWay)
	for i := range v.InTheWay {
		g := &v.InTheWay[i]
		g.User, g.Stream, g.Device = strings.Clone(g.User), strings.Clone(g.Stream), strings.Clone(g.Device)
		g.Labels = guard.Labels(strings.Clone(string(g.Labels)))
	}
	return &v
}

func (k *Keeper) forgetDenial(id guard.ID) {
	if d, there := k.denials.LoadAndDelete(id); there {
		k.inTheWay.Add(-int64(len(d.verdict.InTheWay)))
	}
}

// milliseconds of a ttl. What is longer than 12 days counts as that.
func milliseconds(ttl time.Duration) uint32 {
	return uint32(min(max(ttl.Milliseconds(), 1), 1<<30))
}

// refreshSoon queues one refresh of a lease.
func (k *Keeper) refreshSoon(c guard.Claim, p guard.Policy) {
	won := false
	k.leases.update(c.ID, func(l *lease) { won, l.refreshing = !l.refreshing, true })
	if !won {
		return
	}
	select {
	case k.due <- guard.Request{Claim: c, Policy: p}:
	default: // too many are waiting: another request will try again
		k.leases.update(c.ID, func(l *lease) { l.refreshing = false })
	}
}

// refreshDue refreshes what is due, in batches.
func (k *Keeper) refreshDue(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		var batch []guard.Request
		select {
		case <-ctx.Done():
			return
		case r := <-k.due:
			batch = append(batch, r)
		}
		timer.Reset(linger)
		for lingering := true; lingering && len(batch) < maxBatch; {
			select {
			case r := <-k.due:
				batch = append(batch, r)
			case <-timer.C:
				lingering = false
			}
		}
		k.refresh(ctx, batch)
	}
}

func (k *Keeper) refresh(ctx context.Context, batch []guard.Request) {
	at := k.now()
	before := make([]grant, len(batch))
	for i := range batch {
		c, p := &batch[i].Claim, &batch[i].Policy
		l, there := k.leases.get(c.ID)
		before[i] = l.by
		switch {
		case there && l.by == byAnother:
			c.Intent = guard.Share
		case there && l.serves(p)-at.since(l.at) > resumeMargin:
			c.Intent = guard.Resume
			if l.by == byNode {
				c.Alone = k.aloneFor(ctx, *c, *p)
			}
		case c.Intent != guard.Share:
			c.Intent = guard.Continue // its slot may be another's by now
		}
	}
	answers := k.acquireAll(ctx, batch)
	if ctx.Err() != nil {
		return // closed: calls that this cut short are no trouble with the store
	}
	for i, a := range answers {
		c, p, v, by := batch[i].Claim, batch[i].Policy, a.Verdict, byStore
		if a.Err == nil {
			k.forgetLocal(c.User, c.ID)
		} else {
			v, a.Err = k.away(ctx, c, p, a.Err)
			by = before[i]
		}
		if a.Err == nil {
			k.remember(at, c, p, v, by)
			continue
		}
		k.onError(a.Err)
		// The store is away: its viewers go on until it is back, and are
		// restored then.
		k.leases.update(c.ID, func(l *lease) { l.at, l.ttl, l.refreshing = at, milliseconds(p.TTL), false })
	}
}

func (k *Keeper) acquireAll(ctx context.Context, batch []guard.Request) []guard.Answer {
	if b, ok := k.Store.(guard.Batcher); ok {
		return b.AcquireAll(ctx, batch)
	}
	answers := make([]guard.Answer, len(batch))
	for i, r := range batch {
		answers[i].Verdict, answers[i].Err = k.Store.Acquire(ctx, r.Claim, r.Policy)
	}
	return answers
}

// sweep forgets what is over, by default one shard after the other: a thread
// that does little at a time is seldom interrupted while it holds a lock.
func (k *Keeper) sweep(ctx context.Context, together int) {
	tick := time.NewTicker(sweepEvery / shards * time.Duration(together))
	defer tick.Stop()
	for i := 0; ; i = (i + together) % shards {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := k.now()
		for n := range together {
			k.leases.sweep(i+n, func(l *lease) bool { return now.since(l.at) >= l.lives() })
		}
		if i == 0 {
			k.denials.Range(func(id guard.ID, d denial) bool {
				if now.since(d.at) >= denialTime {
					k.forgetDenial(id)
				}
				return true
			})
		}
	}
}

func (k *Keeper) now() moment { return moment(time.Since(k.start).Milliseconds()) }

func (k *Keeper) streamHash(stream string) uint32 {
	return uint32(maphash.String(k.streamSeed, stream))
}
