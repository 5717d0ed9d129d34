// Package redisstore is a guard.Store on Redis: one key for each user, one
// script for each verb.
//
// It works unchanged on Redis 6.2 and later, Valkey, Sentinel and Cluster, and
// needs no Redis module.
package redisstore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/streamguard/streamguard/guard"
)

// ErrLayout means that what is kept of a user is not in a layout that this
// version knows: an earlier checkout or a newer version wrote it, or somebody else.
// It is left alone.
var ErrLayout = errors.New("unknown layout of a user's value")

// Store keeps one ledger for each user under one key. Create it with Open.
type Store struct {
	client  redis.UniversalClient
	cluster atomic.Pointer[redis.ClusterClient] // in place of client, if its one server turns out to be of a Cluster
	prefix  string
	channel string // where the ids of guards are published that were ended, closed or doubted, or have answered
	timeout time.Duration
	node    uint8 // which of the nodes this is

	readsReplicas bool
	replicas      *redis.Client // behind Sentinels, if it reads them; a Cluster's client knows its own
	replicaLate   atomic.Int64  // until when no list waits for one

	given   Options
	options *redis.UniversalOptions // of a single server
	met     atomic.Bool             // whether it has said what it is
	joining sync.Mutex              // also of closed
	closed  bool

	hears    atomic.Bool // news of endings and doubts elsewhere
	onAway   func(server string, away bool)
	onDeaf   func(error)
	where    string                          // the name of the servers behind Sentinels
	breakers sync.Map                        // of each server, by its name
	members  atomic.Pointer[map[string]bool] // the names of a Cluster's servers; nil as long as they are unknown
}

var (
	_ guard.Store   = (*Store)(nil)
	_ guard.Batcher = (*Store)(nil)
	_ guard.Watcher = (*Store)(nil)
)

// Close closes the store's connections.
func (s *Store) Close() error {
	s.joining.Lock()
	s.closed = true
	s.joining.Unlock()
	err := s.client.Close()
	if c := s.cluster.Load(); c != nil {
		err = errors.Join(err, c.Close())
	}
	if s.replicas != nil {
		err = errors.Join(err, s.replicas.Close())
	}
	return err
}

// Timeout is how long a call takes at most.
func (s *Store) Timeout() time.Duration { return s.timeout }

// Acquire implements guard.Store.
func (s *Store) Acquire(ctx context.Context, c guard.Claim, p guard.Policy) (guard.Verdict, error) {
	answer, err := s.run(ctx, scripts.acquire, c.User, s.acquireArgs(ctx, c, p)...)
	if err != nil {
		return guard.Verdict{}, fmt.Errorf("acquiring a guard: %w", err)
	}
	return acquired(answer, c, p)
}

// AcquireAll implements guard.Batcher: one pipeline to each server.
func (s *Store) AcquireAll(ctx context.Context, requests []guard.Request) []guard.Answer {
	answers := make([]guard.Answer, len(requests))
	timed, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	err := s.byServer(timed, requests, func(server *redis.Client, theirs []int) {
		pipe := server.Pipeline()
		cmds := make([]*redis.Cmd, len(theirs))
		for i, at := range theirs {
			r := requests[at]
			cmds[i] = scripts.acquire.EvalSha(ctx, pipe, []string{s.key(r.Claim.User)}, s.acquireArgs(ctx, r.Claim, r.Policy)...)
		}
		pipe.Exec(timed) // each command has its own error
		for i, at := range theirs {
			r, a := requests[at], &answers[at]
			answer, err := cmds[i].Result()
			switch {
			case redis.HasErrorPrefix(err, "NOSCRIPT"), elsewhere(err): // this server has not seen it yet, or is not the one
				a.Verdict, a.Err = s.Acquire(timed, r.Claim, r.Policy)
			case err != nil:
				a.Err = fmt.Errorf("acquiring a guard: %w", s.typed(err))
			default:
				a.Verdict, a.Err = acquired(answer, r.Claim, r.Policy)
			}
		}
	})
	if err != nil {
		for i := range answers {
			answers[i].Err = fmt.Errorf("acquiring a guard: %w", s.typed(err))
		}
	}
	return answers
}

// acquireArgs are acquire.lua's ARGV.
func (s *Store) acquireArgs(ctx context.Context, c guard.Claim, p guard.Policy) []any {
	var flags byte
	for i, is := range [...]bool{c.Named, c.Nameless, c.Anew, c.Keeps, c.Waited, p.Observe, c.Reloads} {
		if is {
			flags |= 1 << i
		}
	}
	fixed := append(make([]byte, 0, 73), c.ID[:]...)
	fixed = append(fixed, byte(c.Intent), flags, byte(p.Reclaim), s.node)
	for _, d := range [...]time.Duration{p.Interval, p.TTL} {
		fixed = binary.BigEndian.AppendUint32(fixed, milliseconds(d))
	}
	fixed = binary.BigEndian.AppendUint32(fixed, uint32(c.Client))
	for _, d := range [...]time.Duration{c.Patience, c.Alone} {
		fixed = binary.BigEndian.AppendUint32(fixed, milliseconds(d))
	}
	fixed = append(append(fixed, c.For[:]...), c.Path[:]...)
	switch {
	case c.Long:
		fixed = append(fixed, 1)
	case c.Short:
		fixed = append(fixed, 2)
	default:
		fixed = append(fixed, 0)
	}
	args := append(make([]any, 0, 8), fixedArg{ctx, fixed}, c.Stream, c.Device, string(c.Labels), s.channel)
	for _, r := range p.AllRules() {
		args = append(args, r.Per, r.Limit, int(r.AtLimit))
	}
	return args
}

// fixedArg is the first of acquire.lua's ARGV, as it is at the moment when it is sent:
// the call may have waited for a connection.
type fixedArg struct {
	ctx   context.Context
	bytes []byte
}

// MarshalBinary implements encoding.BinaryMarshaler.
func (a fixedArg) MarshalBinary() ([]byte, error) {
	intent := &a.bytes[len(guard.ID{})]
	*intent = byte(guard.Intent(*intent).In(a.ctx))
	return a.bytes, nil
}

// milliseconds has four bytes in a record: 49 days.
func milliseconds(d time.Duration) uint32 { return uint32(min(d.Milliseconds(), math.MaxUint32)) }

// acquired reads the answer of acquire.
func acquired(answer any, c guard.Claim, p guard.Policy) (guard.Verdict, error) {
	r, err := readReply(answer, c.User)
	var v guard.Verdict
	if err == nil {
		v, err = r.verdict(&p)
	}
	if err != nil {
		return guard.Verdict{}, fmt.Errorf("acquiring a guard: %w", err)
	}
	v.Limit = p.Limit
	return v, nil
}

// Refresh implements guard.Store.
func (s *Store) Refresh(ctx context.Context, user string, id guard.ID, p guard.Policy) (guard.Verdict, error) {
	answer, err := s.run(ctx, scripts.refresh, user, id[:], milliseconds(p.Interval), milliseconds(p.TTL), s.node, s.channel)
	if err != nil {
		return guard.Verdict{}, fmt.Errorf("refreshing a guard: %w", err)
	}
	r, err := readReply(answer, user)
	var v guard.Verdict
	if err == nil {
		v, err = r.verdict(nil)
	}
	if err != nil {
		return guard.Verdict{}, fmt.Errorf("refreshing a guard: %w", err)
	}
	return v, nil
}

// Release implements guard.Store.
func (s *Store) Release(ctx context.Context, user string, id guard.ID, p guard.Policy) (bool, error) {
	found, err := s.run(ctx, scripts.release, user, id[:], milliseconds(p.TTL), s.channel)
	if err != nil {
		return false, fmt.Errorf("releasing a guard: %w", err)
	}
	return found == int64(1), nil
}

// Revoke implements guard.Store.
func (s *Store) Revoke(ctx context.Context, user string, id guard.ID, p guard.Policy) (bool, error) {
	found, err := s.run(ctx, scripts.revoke, user, id[:], milliseconds(p.TTL), s.channel)
	if err != nil {
		return false, fmt.Errorf("revoking a guard: %w", err)
	}
	return found == int64(1), nil
}

// CloseGuard implements guard.Store.
func (s *Store) CloseGuard(ctx context.Context, user string, id guard.ID) (bool, error) {
	closed, err := s.run(ctx, scripts.close, user, id[:], s.node, s.channel)
	if err != nil {
		return false, fmt.Errorf("closing a guard: %w", err)
	}
	return closed == int64(1), nil
}

// Undo implements guard.Store.
func (s *Store) Undo(ctx context.Context, user string, id guard.ID, replaced []guard.ID) (bool, error) {
	ids := make([]byte, 0, len(replaced)*len(id))
	for _, other := range replaced {
		ids = append(ids, other[:]...)
	}
	undone, err := s.run(ctx, scripts.undo, user, id[:], ids, s.channel)
	if err != nil {
		return false, fmt.Errorf("undoing a claim: %w", err)
	}
	return undone == int64(1), nil
}

// List implements guard.Store.
func (s *Store) List(ctx context.Context, user string) ([]guard.Guard, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	if s.readsReplicas && guard.IsForDisplay(ctx) {
		if guards, err := s.listOfReplica(ctx, user); err == nil {
			return guards, nil
		}
	}
	answer, err := s.run(ctx, scripts.list, user)
	if err != nil {
		return nil, fmt.Errorf("listing guards: %w", err)
	}
	l, err := parse(answer, user)
	if err != nil {
		return nil, fmt.Errorf("listing guards: %w", err)
	}
	return l.guards, nil
}

// run runs a script, bounded by the store's timeout: a call that shares its
// round trip with others does not heed its own context.
func (s *Store) run(ctx context.Context, script *redis.Script, user string, args ...any) (any, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	type result struct {
		reply any
		err   error
	}
	done := make(chan result, 1)
	go func() {
		reply, err := s.call(ctx, script, s.key(user), args...)
		done <- result{reply, err}
	}()
	select {
	case r := <-done:
		return r.reply, s.typed(r.err)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// typed is an error as what it means.
func (s *Store) typed(err error) error {
	if redis.HasErrorPrefix(err, "LAYOUT") {
		return fmt.Errorf("%w: %w", ErrLayout, err)
	}
	return s.explain(err)
}

// key is where a user's value is. The last colon in it ends the prefix: no key of
// this store is one of another store, whose prefix begins with this one's.
func (s *Store) key(user string) string { return s.prefix + escape.Replace(user) }

// user is whose key it is. It is not ok for a key of which no user's is made.
func (s *Store) user(key string) (user string, ok bool) {
	user = unescape.Replace(strings.TrimPrefix(key, s.prefix))
	return user, s.key(user) == key
}

var (
	escape   = strings.NewReplacer("%", "%25", ":", "%3A")
	unescape = strings.NewReplacer("%25", "%", "%3A", ":")
)
