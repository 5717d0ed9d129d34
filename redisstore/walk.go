package redisstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/streamguard/streamguard/guard"
)

// walkStep is about how many keys a server looks at, or values it sends, before
// others have their turn.
const walkStep = 256

var _ guard.Walker = (*Store)(nil)

// Walk implements guard.Walker. Beside the rights to the scripts it needs
// those to SCAN, GET and TIME.
func (s *Store) Walk(ctx context.Context, visit func(user string, guards []guard.Guard)) error {
	var one sync.Mutex
	var unread []string
	err := s.eachMaster(ctx, func(ctx context.Context, master *redis.Client) error {
		for cursor, more := uint64(0), true; more; more = cursor != 0 {
			keys, next, err := s.scan(ctx, master, cursor)
			if err != nil {
				return err
			}
			found, missed, err := s.read(ctx, master, keys)
			if err != nil {
				return err
			}
			one.Lock()
			unread = append(unread, missed...)
			for _, guards := range found {
				visit(guards[0].User, guards)
			}
			one.Unlock()
			cursor = next
		}
		return nil
	})
	switch {
	case redis.HasErrorPrefix(err, "NOPERM"):
		return fmt.Errorf("walking the users, which needs the rights +scan, +get and +time: %w", s.explain(err))
	case err != nil:
		return fmt.Errorf("walking the users: %w", s.explain(err))
	case len(unread) > 0:
		return fmt.Errorf("walking the users: %d keys hold something else than guards, such as %q", len(unread), unread[0])
	}
	return nil
}

// scan is one step through a master's keys. Those of another store, whose prefix
// begins with this one's, are left out.
func (s *Store) scan(ctx context.Context, master *redis.Client, cursor uint64) (keys []string, next uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	keys, next, err = master.Scan(ctx, cursor, globEscape.Replace(s.prefix)+"*", walkStep).Result()
	return slices.DeleteFunc(keys, func(key string) bool { _, ok := s.user(key); return !ok }), next, err
}

// globEscape makes a text match itself in SCAN.
var globEscape = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`, `]`, `\]`)

// read returns what users hold whose keys a master has. The clock is that
// master's.
func (s *Store) read(ctx context.Context, master *redis.Client, keys []string) (found [][]guard.Guard, unread []string, err error) {
	if len(keys) == 0 {
		return nil, nil, nil
	}
	timed, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	pipe := master.Pipeline()
	clock := pipe.Time(timed)
	values := make([]*redis.StringCmd, len(keys))
	for i, key := range keys {
		values[i] = pipe.Get(timed, key)
	}
	pipe.Exec(timed) // each command has its own error
	now, err := clock.Result()
	if err != nil {
		return nil, nil, err
	}
	for i, key := range keys {
		user, _ := s.user(key)
		var guards []guard.Guard
		switch value, err := values[i].Result(); {
		case errors.Is(err, redis.Nil): // gone meanwhile
		case redis.HasErrorPrefix(err, "WRONGTYPE"):
			unread = append(unread, key)
		case redis.HasErrorPrefix(err, "MOVED"), redis.HasErrorPrefix(err, "ASK"):
			if guards, err = s.List(ctx, user); err != nil {
				return nil, nil, err
			}
		case err != nil:
			return nil, nil, err
		default:
			l, err := parse([]any{now.UnixMilli(), value}, user)
			if err != nil {
				unread = append(unread, key)
				continue
			}
			guards = l.guards
		}
		if len(guards) > 0 {
			found = append(found, guards)
		}
	}
	return found, unread, nil
}

// eachMaster calls do with the client of each master, of several at once.
func (s *Store) eachMaster(ctx context.Context, do func(context.Context, *redis.Client) error) error {
	return s.each(ctx, (*redis.ClusterClient).ForEachMaster, do)
}

// each calls do with the client of the server, or of those that inCluster chooses.
func (s *Store) each(
	ctx context.Context,
	inCluster func(*redis.ClusterClient, context.Context, func(context.Context, *redis.Client) error) error,
	do func(context.Context, *redis.Client) error,
) error {
	if c, ok := s.redis().(*redis.Client); ok && s.options != nil && !s.met.Load() {
		c.Ping(ctx) // connects, and hears whether there are others
	}
	switch c := s.redis().(type) {
	case *redis.ClusterClient:
		asking := ctx
		if end, ok := ctx.Deadline(); ok { // the first to be asked who they are may hang
			var cancel context.CancelFunc
			asking, cancel = context.WithTimeout(ctx, time.Until(end)/2)
			defer cancel()
		}
		return inCluster(c, asking, func(_ context.Context, node *redis.Client) error { return do(ctx, node) })
	case *redis.Client:
		return do(ctx, c)
	}
	return fmt.Errorf("unexpected client %T", s.client)
}
