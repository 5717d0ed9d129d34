package redisstore

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/streamguard/streamguard/guard"
)

const (
	// silence is how long nothing may come from a subscription before it is asked
	// whether it lives, and how long it has to answer.
	silence = 2 * time.Second

	// deafAfter is how many subscriptions in a row come to nothing before OnDeaf
	// hears why, if no server refuses them.
	deafAfter = 3
)

// Watch implements guard.Watcher. It subscribes once a second at most.
func (s *Store) Watch(ctx context.Context, news func(guard.ID)) {
	for failures, told := 0, false; ctx.Err() == nil; {
		next := time.After(time.Second)
		start := time.Now()
		err := s.hear(ctx, news)
		heard := s.hears.Swap(false) && time.Since(start) > silence
		if errors.Is(err, redis.ErrClosed) || ctx.Err() != nil {
			return
		}
		refused := answered(err)
		if heard && !refused {
			failures, told = 0, false
		} else {
			failures++
		}
		if !told && (refused || failures >= deafAfter && !s.isAway()) {
			s.onDeaf(s.explain(err))
			told = true
		}
		select {
		case <-ctx.Done():
		case <-next:
		}
	}
}

// Deaf reports whether news from elsewhere is not heard of at the moment.
func (s *Store) Deaf() bool { return !s.hears.Load() }

// isAway reports whether a server is held to be away, which was told already.
func (s *Store) isAway() bool {
	for _, away := range s.Away() {
		if away {
			return true
		}
	}
	return false
}

// hear listens as long as the subscription lives. The client's own way, which
// is to ask and not to mind the answer, would go on listening to a master that
// hangs when there is another.
func (s *Store) hear(ctx context.Context, news func(guard.ID)) error {
	sub := s.redis().Subscribe(ctx, s.channel)
	defer sub.Close()
	defer context.AfterFunc(ctx, func() { sub.Close() })()
	for asked := false; ; {
		message, err := sub.ReceiveTimeout(ctx, silence)
		switch timeout, _ := errors.AsType[net.Error](err); {
		case err == nil:
			asked = false
		case !asked && timeout != nil && timeout.Timeout():
			asked = true
			sub.Ping(ctx)
		default:
			return err
		}
		switch n := message.(type) {
		case *redis.Subscription:
			s.hears.Store(n.Count > 0)
		case *redis.Message:
			if len(n.Payload) == len(guard.ID{}) {
				news(guard.ID([]byte(n.Payload)))
			}
		}
	}
}
