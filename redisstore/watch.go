package redisstore

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/streamguard/streamguard/guard"
)

// silence is how long nothing may come from a subscription before it is asked
// whether it lives, and how long it has to answer.
const silence = 2 * time.Second

// Watch implements guard.Watcher. It subscribes once a second at most.
func (s *Store) Watch(ctx context.Context, ended func(guard.ID)) {
	for deaf := false; ctx.Err() == nil; {
		next := time.After(time.Second)
		err := s.hear(ctx, ended)
		if errors.Is(err, redis.ErrClosed) {
			return
		}
		refused := redis.HasErrorPrefix(err, "NOPERM")
		if refused && !deaf {
			s.onDeaf(err)
		}
		deaf = refused
		select {
		case <-ctx.Done():
		case <-next:
		}
	}
}

// hear listens as long as the subscription lives. The client's own way, which
// is to ask and not to mind the answer, would go on listening to a master that
// hangs when there is another.
func (s *Store) hear(ctx context.Context, ended func(guard.ID)) error {
	sub := s.client.Subscribe(ctx, s.channel)
	defer sub.Close()
	defer context.AfterFunc(ctx, func() { sub.Close() })()
	for asked := false; ; {
		news, err := sub.ReceiveTimeout(ctx, silence)
		switch timeout, _ := errors.AsType[net.Error](err); {
		case err == nil:
			asked = false
		case !asked && timeout != nil && timeout.Timeout():
			asked = true
			sub.Ping(ctx)
		default:
			return err
		}
		if m, ok := news.(*redis.Message); ok && len(m.Payload) == len(guard.ID{}) {
			ended(guard.ID([]byte(m.Payload)))
		}
	}
}
