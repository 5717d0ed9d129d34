// Package redisstore is a guard.Store on Redis: one key for each user, one
// script for each verb.
//
// It works unchanged on Redis 6.2 and later, Valkey, Sentinel and Cluster, and
// needs no Redis module.
package redisstore

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/streamguard/streamguard/guard"
)

var (
	//go:embed value.lua
	value string
	//go:embed ledger.lua
	ledger string
	//go:embed finish.lua
	finish string

	//go:embed plain.lua
	plain string
	//go:embed acquire.lua
	acquire string
	//go:embed refresh.lua
	refresh string
	//go:embed release.lua
	release string
	//go:embed revoke.lua
	revoke string
	//go:embed list.lua
	list string

	own = newScripts(value)
)

// scripts are those of one version.
type scripts struct{ acquire, refresh, release, revoke, list *redis.Script }

func newScripts(value string) scripts {
	return scripts{
		acquire: redis.NewScript(value + plain + ledger + finish + acquire),
		refresh: redis.NewScript(value + refresh),
		release: redis.NewScript(value + finish + release),
		revoke:  redis.NewScript(value + finish + revoke),
		list:    redis.NewScript(value + list),
	}
}

// ErrLayout means that what is kept of a user is not in a layout that this
// version knows: a newer version wrote it, or somebody else. It is left alone.
var ErrLayout = errors.New("unknown layout of a user's value")

// Store keeps one ledger for each user under one key. Create it with Open.
type Store struct {
	scripts scripts
	client  redis.UniversalClient
	cluster atomic.Pointer[redis.ClusterClient] // in place of client, if its one server turns out to be of a Cluster
	prefix  string
	channel string // where the ids of ended guards are published
	timeout time.Duration

	readsReplicas bool
	replicas      *redis.Client // behind Sentinels, if it reads them; a Cluster's client knows its own
	replicaLate   atomic.Int64  // until when no list waits for one

	given   Options
	options *redis.UniversalOptions // of a single server
	met     atomic.Bool             // whether it has said what it is
	joining sync.Mutex              // also of closed
	closed  bool

	hears    atomic.Bool // endings elsewhere
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

// Acquire implements guard.Store.
func (s *Store) Acquire(ctx context.Context, c guard.Claim, p guard.Policy) (guard.Verdict, error) {
	reply, err := s.run(ctx, s.scripts.acquire, c.User, s.acquireArgs(c, p)...)
	if err != nil {
		return guard.Verdict{}, fmt.Errorf("acquiring a guard: %w", err)
	}
	return acquired(reply, c, p)
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
			cmds[i] = s.scripts.acquire.EvalSha(ctx, pipe, []string{s.key(r.Claim.User)}, s.acquireArgs(r.Claim, r.Policy)...)
		}
		pipe.Exec(timed) // each command has its own error
		for i, at := range theirs {
			r, a := requests[at], &answers[at]
			reply, err := cmds[i].Result()
			switch {
			case redis.HasErrorPrefix(err, "NOSCRIPT"), elsewhere(err): // this server has not seen it yet, or is not the one
				a.Verdict, a.Err = s.Acquire(ctx, r.Claim, r.Policy)
			case err != nil:
				a.Err = fmt.Errorf("acquiring a guard: %w", s.typed(err))
			default:
				a.Verdict, a.Err = acquired(reply, r.Claim, r.Policy)
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

func (s *Store) acquireArgs(c guard.Claim, p guard.Policy) []any {
	args := append(make([]any, 0, 13),
		c.ID[:], c.Stream, c.Device, string(c.Labels), int(c.Intent), milliseconds(p.Interval), milliseconds(p.TTL), p.ReclaimLapsed, s.channel, milliseconds(c.Alone))
	for _, r := range p.AllRules() {
		args = append(args, r.Per, r.Limit, int(r.AtLimit))
	}
	return args
}

// milliseconds has four bytes in a record: 49 days.
func milliseconds(d time.Duration) int64 { return min(d.Milliseconds(), math.MaxUint32) }

// acquired reads the answer of acquire.
func acquired(reply any, c guard.Claim, p guard.Policy) (guard.Verdict, error) {
	v, l, err := verdict(reply, c.User)
	if err != nil {
		return guard.Verdict{}, fmt.Errorf("acquiring a guard: %w", err)
	}
	v.Limit = p.Limit
	v.Replaced = l.replaced
	switch v.Outcome {
	case guard.Admitted, guard.Refreshed:
		g := l.find(func(g guard.Guard) bool { return g.ID == c.ID })
		if g == nil { // Share: another guard speaks for the claim
			g = l.find(func(g guard.Guard) bool { return g.Stream == c.Stream && g.Device == c.Device })
		}
		if g == nil {
			return guard.Verdict{}, fmt.Errorf("acquiring a guard: %v, but it is not in the answer", v.Outcome)
		}
		v.Guard = *g
	case guard.Rejected:
		rules := p.AllRules()
		if l.rule < 1 || l.rule > int64(len(rules)) {
			return guard.Verdict{}, fmt.Errorf("acquiring a guard: %w", errReply)
		}
		v.Refuse(l.now, rules[l.rule-1], l.guards, c, p)
	case guard.Revoked:
		v.FreeIn = l.revokedUntil[c.ID].Sub(l.now)
	}
	return v, nil
}

// Refresh implements guard.Store.
func (s *Store) Refresh(ctx context.Context, user string, id guard.ID, p guard.Policy) (guard.Verdict, error) {
	reply, err := s.run(ctx, s.scripts.refresh, user, id[:], milliseconds(p.Interval), milliseconds(p.TTL))
	if err != nil {
		return guard.Verdict{}, fmt.Errorf("refreshing a guard: %w", err)
	}
	v, l, err := verdict(reply, user)
	if err != nil {
		return guard.Verdict{}, fmt.Errorf("refreshing a guard: %w", err)
	}
	if g := l.find(func(g guard.Guard) bool { return g.ID == id }); g != nil {
		v.Guard = *g
	}
	return v, nil
}

// Release implements guard.Store.
func (s *Store) Release(ctx context.Context, user string, id guard.ID, p guard.Policy) (bool, error) {
	found, err := s.run(ctx, s.scripts.release, user, id[:], milliseconds(p.TTL), s.channel)
	if err != nil {
		return false, fmt.Errorf("releasing a guard: %w", err)
	}
	return found == int64(1), nil
}

// Revoke implements guard.Store.
func (s *Store) Revoke(ctx context.Context, user string, id guard.ID, p guard.Policy) (bool, error) {
	found, err := s.run(ctx, s.scripts.revoke, user, id[:], milliseconds(p.TTL), s.channel)
	if err != nil {
		return false, fmt.Errorf("revoking a guard: %w", err)
	}
	return found == int64(1), nil
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
	reply, err := s.run(ctx, s.scripts.list, user)
	if err != nil {
		return nil, fmt.Errorf("listing guards: %w", err)
	}
	l, err := parse(reply, user)
	if err != nil {
		return nil, fmt.Errorf("listing guards: %w", err)
	}
	return l.guards, nil
}

// run runs a script, bounded by the store's timeout: a call that shares its
// round trip with others does not heed its own context.
func (s *Store) run(ctx context.Context, script *redis.Script, user string, args ...any) (any, error) {
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

func (s *Store) key(user string) string { return s.prefix + user }

// verdict reads an answer of acquire or refresh: {outcome, now, records}, of
// acquire also {…, rule, replaced}.
func verdict(reply any, user string) (guard.Verdict, *ledgerView, error) {
	fields, ok := reply.([]any)
	if !ok || len(fields) < 3 {
		return guard.Verdict{}, nil, errReply
	}
	outcome, ok := fields[0].(int64)
	if !ok || outcome < int64(guard.Admitted) || outcome > int64(guard.Absent) {
		return guard.Verdict{}, nil, errReply
	}
	l, err := parse(fields[1:], user)
	if err != nil {
		return guard.Verdict{}, nil, err
	}
	return guard.Verdict{Outcome: guard.Outcome(outcome), Held: len(l.guards)}, l, nil
}

// ledgerView is what a script answers of a user's ledger.
type ledgerView struct {
	now          time.Time
	guards       []guard.Guard // oldest first
	revokedUntil map[guard.ID]time.Time
	records      int   // guards and marks
	rule         int64 // that refuses, the first is 1
	replaced     []guard.ID
}

var errReply = errors.New("unexpected answer from the script")

// parse reads {now, records, rule, replaced}, of which the last two may be
// missing; the records' layout is described in value.lua.
func parse(reply any, user string) (*ledgerView, error) {
	fields, ok := reply.([]any)
	if !ok || len(fields) < 2 {
		return nil, errReply
	}
	now, isNumber := fields[0].(int64)
	value, isString := fields[1].(string)
	if !isNumber || !isString {
		return nil, errReply
	}
	value, ok = strings.CutPrefix(value, "1")
	if !ok {
		return nil, ErrLayout
	}
	l := &ledgerView{now: moment(now)}
	for r := (reader{rest: value}); len(r.rest) > 0; {
		kind := r.take(1)
		g := guard.Guard{User: user}
		copy(g.ID[:], r.take(16))
		created, refreshed := min(r.number(6), now), min(r.number(6), now)
		g.CreatedAt, g.ExpiresAt, g.RemovedAt = moment(created), moment(refreshed+r.number(4)), moment(refreshed+r.number(4))
		stream, device, labels := int(r.number(1)), int(r.number(1)), int(r.number(2))
		g.Stream, g.Device, g.Labels = r.take(stream), r.take(device), guard.Labels(r.take(labels))
		if r.short {
			return nil, errReply
		}
		if !g.RemovedAt.After(l.now) {
			continue
		}
		switch kind { // others are a later version's
		case "G":
			l.records++
			l.guards = append(l.guards, g)
		case "L", "V":
			l.records++
		case "R":
			l.records++
			if l.revokedUntil == nil {
				l.revokedUntil = make(map[guard.ID]time.Time)
			}
			l.revokedUntil[g.ID] = g.RemovedAt
		}
	}
	if len(fields) > 2 {
		l.rule, _ = fields[2].(int64)
	}
	if len(fields) > 3 {
		ids, _ := fields[3].(string)
		if len(ids)%len(guard.ID{}) != 0 {
			return nil, errReply
		}
		for id := range slices.Chunk([]byte(ids), len(guard.ID{})) {
			l.replaced = append(l.replaced, guard.ID(id))
		}
	}
	return l, nil
}

func (l *ledgerView) find(match func(guard.Guard) bool) *guard.Guard {
	if i := slices.IndexFunc(l.guards, match); i >= 0 {
		return &l.guards[i]
	}
	return nil
}

// reader takes fields off the front of a value. After running short it gives
// zeros.
type reader struct {
	rest  string
	short bool
}

func (r *reader) take(n int) string {
	if n > len(r.rest) {
		r.rest, r.short = "", true
		return strings.Repeat("\x00", n)
	}
	field := r.rest[:n]
	r.rest = r.rest[n:]
	return field
}

// number is an unsigned one, big-endian, of so many bytes.
func (r *reader) number(bytes int) (n int64) {
	for _, b := range []byte(r.take(bytes)) {
		n = n<<8 | int64(b)
	}
	return n
}

func moment(milliseconds int64) time.Time { return time.UnixMilli(milliseconds).UTC() }
