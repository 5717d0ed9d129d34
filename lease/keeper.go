// Package lease remembers on one node what the store said of a playback, so
// that a playing viewer costs the store three calls a minute and a request in
// between costs nothing.
//
// What that is traded for: while a lease lasts, the guard's slot is taken in the
// store, so no lease lets anybody in past the limit. But a node hears of an
// ending elsewhere by a message, and where that is lost, by the next refresh: a
// third of the interval later at most. And while the store cannot answer, leases
// go on without it, and for policies that want it (CountLocally) each node
// admits new playbacks by a count of its own, which knows nothing of the others'.
package lease

import (
	"context"
	"hash/maphash"
	"slices"
	"sync"
	"time"

	"github.com/puzpuzpuz/xsync/v4"
	"golang.org/x/sync/singleflight"

	"github.com/streamguard/streamguard/guard"
)

// Bounds on what a Keeper remembers: at most 86 bytes a lease, 360 MB in all,
// 300 MB of denials, 65 MB of vacancies, 40 MB of who speaks for whom, and 120 MB of
// names for explicit calls. Beyond them a playback is not remembered: its requests
// ask the store each, and are answered the same. Trials and starts that wait are no
// more than the requests under way.
const (
	MaxLeases  = 1 << 22
	MaxDenials = 1 << 16
)

// sweepEvery is how much later, at most, what is over is forgotten.
const sweepEvery = 10 * time.Second

// moveInterval is the least between a guard's moves to other streams.
var moveInterval = guard.Paced(time.Second)

// Keeper is a guard.Store that remembers. Create it with New, stop it with
// Close. Requests for media ask Known, and if they are not, Ask; the methods of
// the store itself, and Keep, are for explicit calls.
type Keeper struct {
	guard.Store
	local   guard.Store // counts on this node while Store is away
	onError func(error)
	timeout time.Duration // within which Store does what it is asked, or not at all

	clock   func() time.Time
	start   time.Time
	seed    maphash.Seed
	leases  *table
	denials denials
	looks   *xsync.Map[guard.ID, look]
	trials  *xsync.Map[guard.ID, *Trial]
	speaks  *xsync.Map[guard.ID, guard.ID]      // the guards that serve playbacks without a name
	hangUps *xsync.Map[guard.ID, chan struct{}] // each closed when the store has answered
	served  *xsync.Map[guard.ID, lease]         // and the last of the leases of theirs
	waiting *waiting                            // starts, for news of doubted guards
	leaving leaving                             // what other nodes are about to close
	named   *xsync.Map[guard.ID, guard.Claim]   // guards of explicit calls, as the store last told of them
	ended   endings
	asking  singleflight.Group
	left    chan struct{} // one for each call under way that nobody waits for
	due     chan guard.Request
	turns   [turns]chan struct{} // by hash of the user

	inline  bool // refreshes are not queued
	life    context.Context
	closed  <-chan struct{}
	cancel  context.CancelFunc
	running sync.WaitGroup
}

// New returns a Keeper in front of the store. local counts on this node alone
// for policies that want it while the store cannot answer; onError, which may
// be nil, hears of failures that no caller is told. A store whose
// calls take effect within a time of their own says so by Timeout.
func New(store, local guard.Store, onError func(error)) *Keeper {
	k := newKeeper(store, local, onError, MaxLeases, time.Now)
	k.run(1)
	return k
}

// NewAt returns a Keeper in front of a store that answers at once, by another clock:
// it refreshes while its caller waits, and forgets what is over when it is told to.
func NewAt(store, local guard.Store, clock func() time.Time) *Keeper {
	k := newKeeper(store, local, nil, MaxLeases, clock)
	k.inline = true
	return k
}

func newKeeper(store, local guard.Store, onError func(error), maxLeases int, clock func() time.Time) *Keeper {
	if onError == nil {
		onError = func(error) {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	k := &Keeper{
		Store:   store,
		local:   local,
		onError: onError,
		clock:   clock,
		start:   clock().Add(-time.Millisecond), // when no guard has ended
		seed:    maphash.MakeSeed(),
		leases:  newTable(maxLeases),
		denials: newDenials(),
		looks:   xsync.NewMap[guard.ID, look](),
		trials:  xsync.NewMap[guard.ID, *Trial](),
		speaks:  xsync.NewMap[guard.ID, guard.ID](),
		hangUps: xsync.NewMap[guard.ID, chan struct{}](),
		served:  xsync.NewMap[guard.ID, lease](),
		waiting: newWaiting(),
		named:   xsync.NewMap[guard.ID, guard.Claim](),
		left:    make(chan struct{}, maxLeft),
		due:     make(chan guard.Request, queued),
		closed:  ctx.Done(),
		cancel:  cancel,
	}
	for i := range k.turns {
		k.turns[i] = make(chan struct{}, atATime)
	}
	if s, ok := store.(interface{ Timeout() time.Duration }); ok {
		k.timeout = s.Timeout()
	}
	k.life = ctx
	return k
}

// run starts the Keeper's goroutines, one of which sweeps so many shards of its leases
// at once.
func (k *Keeper) run(together int) {
	ctx := k.life
	for range refreshers {
		k.running.Go(func() { k.refreshQueued(ctx) })
	}
	k.running.Go(func() { k.sweep(ctx, together) })
	if w, ok := k.Store.(guard.Watcher); ok {
		k.running.Go(func() { w.Watch(ctx, k.hear) })
	}
}

// Size is how many leases and denials are remembered.
func (k *Keeper) Size() (leases, denials int) { return k.leases.len(), k.denials.len() }

// Close stops the Keeper's goroutines and waits for them. Nothing is lost with
// it: all truth is in the store.
func (k *Keeper) Close() error {
	k.cancel()
	k.running.Wait()
	return nil
}

// Closed is closed when the Keeper is.
func (k *Keeper) Closed() <-chan struct{} { return k.closed }

// Known reports whether a request's playback has a lease, and how many guards
// its user held lately. Where the lease is due for a refresh, Known queues one,
// in the request's words; the request does not wait for it. What starts anew, and
// does not only reload the stream that it had, is not known. The trial, nil for
// nearly all requests, has to be ended.
func (k *Keeper) Known(c *guard.Claim, p *guard.Policy) (held int, trial *Trial, ok bool) {
	l, ok := k.leases.get(c.ID)
	if !ok || c.Anew && (!c.Reloads || k.moves(&l, c)) {
		return 0, nil, false
	}
	age := k.now().since(l.at)
	if age >= l.serves(p) {
		return 0, nil, false
	}
	switch l.by {
	case byAnother:
		if serves, there := k.speaks.Load(c.ID); !there || k.endedSince(serves, l.at) {
			return 0, nil, false
		}
	case onTrial:
		if t, there := k.trials.Load(c.ID); there {
			if trial, ok = t.join(); !ok {
				return 0, nil, false
			}
		}
	case hangingUp:
		return 0, nil, false
	}
	// The lease may be of a policy with shorter times.
	if !l.refreshing && (l.by == perhapsClosed || age >= refreshAfter(c.ID, min(p.Interval, l.lives())) || age >= moveInterval && k.moves(&l, c)) {
		k.queueRefresh(*c, *p)
	}
	return int(l.held), trial, true
}

// Reconsider has the store be asked again about a playback that was denied lately.
func (k *Keeper) Reconsider(id guard.ID) { k.denials.delete(id) }

// IsServed reports whether a playback without a name is served by another's guard.
func (k *Keeper) IsServed(id guard.ID) bool {
	l, known := k.leases.get(id)
	return known && l.by == byAnother
}

// Check is Acquire for a request of a playback that may be known: then the
// outcome is Known. It is Known, and then Ask.
func (k *Keeper) Check(ctx context.Context, c guard.Claim, p guard.Policy) (guard.Verdict, *Trial, error) {
	if held, trial, ok := k.Known(&c, &p); ok {
		return isKnown(&c, &p, held), trial, nil
	}
	return k.Ask(ctx, c, p)
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

// Undo implements guard.Store. Without an answer nothing is certain any more.
func (k *Keeper) Undo(ctx context.Context, user string, id guard.ID, replaced []guard.ID) (bool, error) {
	undone, err := k.Store.Undo(ctx, user, id, replaced)
	if undone || err != nil {
		k.forget(id)
		for _, id := range replaced {
			k.denials.delete(id)
		}
	}
	return undone, err
}

// remember keeps in mind the answer to what was asked at a moment.
func (k *Keeper) remember(at moment, c guard.Claim, p guard.Policy, v guard.Verdict, by grant) {
	if c.Path != (guard.ID{}) && v.Guard.ID == c.Path {
		c.ID, c.Nameless = c.Path, false
	}
	if c.Long && c.For != (guard.ID{}) && v.Guard.ID == c.ID { // its guard has another name now
		k.forget(c.For)
	}
	k.note(at, c, p, v, by)
	for _, id := range slices.Concat(v.Replaced, v.Doubted) {
		k.forget(id)
	}
	if v.Answered {
		k.waiting.tell(v.Guard.ID)
	}
}

// note keeps in mind what an answer says of the playback that asked.
func (k *Keeper) note(at moment, c guard.Claim, p guard.Policy, v guard.Verdict, by grant) {
	if v.Outcome == guard.Doubted || k.endedSince(c.ID, at) { // it says nothing about what has started since
		k.leases.update(c.ID, func(l *lease) { l.refreshing = false })
		return
	}
	switch v.Outcome {
	case guard.Admitted, guard.Refreshed:
		k.denials.delete(c.ID)
		if by != onTrial {
			k.looks.Delete(c.ID)
		}
		l := lease{at: at, ttl: milliseconds(slotTime(&p)), stream: k.hash(v.Guard.Stream), held: uint16(v.Held), by: by}
		if c.Nameless { // a guard whose own media have named themselves is not refreshed by this
			l.ttl = min(l.ttl, milliseconds(v.FreeIn))
		}
		if v.Guard.ID != c.ID {
			l.by = byAnother
			if !k.serve(c.ID, v.Guard.ID, l) {
				k.leases.delete(c.ID)
				return
			}
		}
		k.leases.put(c.ID, l)
		if k.endedSince(c.ID, at) { // just now
			k.leases.delete(c.ID)
		}
	case guard.Vacant:
		k.leases.delete(c.ID)
		if !onlyLooked(&c, &v) {
			k.rememberVacancy(at, &c, &p, v.Held)
		}
	case guard.Released, guard.Absent:
		k.leases.delete(c.ID)
	case guard.Rejected, guard.Revoked, guard.Replaced, guard.Uncounted:
		k.leases.delete(c.ID)
		k.deny(at, c, p, v)
	}
}

// hear is news of a guard.
func (k *Keeper) hear(n guard.News) {
	if n.ClosedIn > 0 {
		k.leaving.note(n, k.clock())
	} else {
		k.forget(n.ID)
	}
}

// forget makes the next request of a playback ask the store, the next one of
// each playback that its guard stood in the way of, and those that wait for news of it.
func (k *Keeper) forget(id guard.ID) {
	k.ended.of(id).Store(uint32(k.now()))
	k.forgetVacancy(id)
	k.leases.delete(id)
	k.named.Delete(id)
	k.denials.delete(id)
	k.waiting.tell(id)
}

func (k *Keeper) endedSince(id guard.ID, at moment) bool { return k.ended.since(id, at, k.now()) }

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
		for n := range together {
			k.sweepShard(i + n)
		}
	}
}

// Sweep forgets all that is over.
func (k *Keeper) Sweep() {
	for i := range shards {
		k.sweepShard(i)
	}
}

func (k *Keeper) sweepShard(i int) {
	now := k.now()
	k.leases.sweep(i, func(l *lease) bool { return now.since(l.at) >= l.lives() })
	if i == 0 {
		k.denials.sweep(now)
		k.sweepLooks(now)
		k.sweepNamed()
		k.sweepSpeaks()
	}
}

func (k *Keeper) now() moment { return moment(k.clock().Sub(k.start).Milliseconds()) }

func (k *Keeper) hash(stream string) uint32 { return uint32(maphash.String(k.seed, stream)) }
