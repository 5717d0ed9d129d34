// Package memstore is a guard.Store in process memory: exact for one process,
// gone with it.
package memstore

import (
	"context"
	"errors"
	"hash/maphash"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/streamguard/streamguard/guard"
)

// MaxUsers is how many users a store holds at once: some 500 MB with two
// guards each. A claim of one user more is answered with ErrFull.
const MaxUsers = 1 << 20

// ErrFull means that the store holds MaxUsers users and can take no other.
var ErrFull = errors.New("memory store is full")

const (
	shards     = 256
	sweepEvery = 30 * time.Second // all shards once
)

// Store keeps one ledger for each user. Create it with New, stop it with Close.
type Store struct {
	maxUsers int64
	clock    func() time.Time
	start    time.Time
	seed     maphash.Seed
	users    atomic.Int64
	shards   [shards]shard
	stop     chan struct{}
	stopped  sync.Once
}

type shard struct {
	mu      sync.Mutex
	ledgers map[string]*guard.Ledger
}

var (
	_ guard.Store  = (*Store)(nil)
	_ guard.Walker = (*Store)(nil)
)

// New returns an empty store that sweeps itself until it is closed.
func New() *Store {
	s := newStore(MaxUsers, time.Now)
	go s.sweep()
	return s
}

// NewAt returns an empty store by another clock. It shrinks when it is told to.
func NewAt(clock func() time.Time) *Store { return newStore(MaxUsers, clock) }

func newStore(maxUsers int64, clock func() time.Time) *Store {
	s := &Store{
		maxUsers: maxUsers,
		clock:    clock,
		start:    clock(),
		seed:     maphash.MakeSeed(),
		stop:     make(chan struct{}),
	}
	for i := range s.shards {
		s.shards[i].ledgers = make(map[string]*guard.Ledger)
	}
	return s
}

// Close stops sweeping. The store answers as before, but no longer shrinks.
func (s *Store) Close() error {
	s.stopped.Do(func() { close(s.stop) })
	return nil
}

// Acquire implements guard.Store. Its only error is ErrFull.
func (s *Store) Acquire(ctx context.Context, c guard.Claim, p guard.Policy) (v guard.Verdict, err error) {
	sh := s.shard(c.User)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	l := sh.ledgers[c.User]
	if l == nil {
		l = new(guard.Ledger)
	}
	c.Intent = c.Intent.In(ctx)
	v = l.Acquire(s.now(), c, p)
	if l.Len() == 0 || sh.ledgers[c.User] != nil {
		return v, nil
	}
	if s.users.Add(1) > s.maxUsers {
		s.users.Add(-1)
		return guard.Verdict{}, ErrFull
	}
	sh.ledgers[strings.Clone(c.User)] = l // which outlives the request
	return v, nil
}

// Refresh implements guard.Store. It never fails.
func (s *Store) Refresh(_ context.Context, user string, id guard.ID, p guard.Policy) (v guard.Verdict, _ error) {
	v.Outcome = guard.Absent
	s.with(user, func(l *guard.Ledger, now time.Time) { v = l.Refresh(now, id, p) })
	return v, nil
}

// Release implements guard.Store. It never fails.
func (s *Store) Release(_ context.Context, user string, id guard.ID, p guard.Policy) (found bool, _ error) {
	s.with(user, func(l *guard.Ledger, now time.Time) { found = l.Release(now, id, p) })
	return found, nil
}

// Revoke implements guard.Store. It never fails.
func (s *Store) Revoke(_ context.Context, user string, id guard.ID, p guard.Policy) (found bool, _ error) {
	s.with(user, func(l *guard.Ledger, now time.Time) { found = l.Revoke(now, id, p) })
	return found, nil
}

// CloseGuard implements guard.Store. It never fails.
func (s *Store) CloseGuard(_ context.Context, user string, id guard.ID) (closed bool, _ error) {
	s.with(user, func(l *guard.Ledger, now time.Time) { closed = l.CloseGuard(now, id) })
	return closed, nil
}

// Undo implements guard.Store. It never fails.
func (s *Store) Undo(_ context.Context, user string, id guard.ID, replaced []guard.ID) (undone bool, _ error) {
	s.with(user, func(l *guard.Ledger, now time.Time) { undone = l.Undo(now, id, replaced) })
	return undone, nil
}

// List implements guard.Store. It never fails.
func (s *Store) List(_ context.Context, user string) (guards []guard.Guard, _ error) {
	s.with(user, func(l *guard.Ledger, now time.Time) { guards = l.List(now) })
	return guards, nil
}

// Walk implements guard.Walker. It never holds up more than one user, or the
// names of one shard.
func (s *Store) Walk(ctx context.Context, visit func(user string, guards []guard.Guard)) error {
	for i := range s.shards {
		if err := ctx.Err(); err != nil {
			return err
		}
		for _, user := range s.shards[i].users() {
			if guards, _ := s.List(ctx, user); len(guards) > 0 {
				visit(user, guards)
			}
		}
	}
	return nil
}

// Size is how many guards and marks the store holds under a user.
func (s *Store) Size(user string) (n int) {
	s.with(user, func(l *guard.Ledger, _ time.Time) { n = l.Len() })
	return n
}

// with calls f on the user's ledger, if there is one.
func (s *Store) with(user string, f func(*guard.Ledger, time.Time)) {
	sh := s.shard(user)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if l := sh.ledgers[user]; l != nil {
		f(l, s.now())
	}
}

func (s *Store) shard(user string) *shard {
	return &s.shards[maphash.String(s.seed, user)%shards]
}

// now follows the monotonic clock, so that setting the machine's clock neither
// ends guards nor makes them eternal.
func (s *Store) now() time.Time {
	return s.start.Add(s.clock().Sub(s.start)).Round(0).Truncate(time.Millisecond).UTC()
}

// Sweep forgets all users who have nothing left.
func (s *Store) Sweep() {
	for i := range s.shards {
		s.shards[i].sweep(s)
	}
}

// sweep forgets users who have nothing left, one shard at a time.
func (s *Store) sweep() {
	tick := time.NewTicker(sweepEvery / shards)
	defer tick.Stop()
	for i := 0; ; i = (i + 1) % shards {
		select {
		case <-s.stop:
			return
		case <-tick.C:
			s.shards[i].sweep(s)
		}
	}
}

func (sh *shard) users() []string {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return slices.Collect(maps.Keys(sh.ledgers))
}

func (sh *shard) sweep(s *Store) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	now := s.now()
	for user, l := range sh.ledgers {
		if l.Forget(now) {
			delete(sh.ledgers, user)
			s.users.Add(-1)
		}
	}
}
