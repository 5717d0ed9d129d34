package redisstore

import (
	"context"
	"encoding/binary"
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
func (s *Store) Watch(ctx context.Context, heard func(guard.News)) {
	for failures, told := 0, false; ctx.Err() == nil; {
		next := time.After(time.Second)
		start := time.Now()
		err := s.hear(ctx, heard)
		lived := s.hears.Swap(false) && time.Since(start) > silence
		if errors.Is(err, redis.ErrClosed) || ctx.Err() != nil {
			return
		}
		refused := answered(err)
		if lived && !refused {
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
func (s *Store) hear(ctx context.Context, heard func(guard.News)) error {
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
			if about, ok := s.newsOf([]byte(n.Payload)); ok {
				heard(about)
			}
		}
	}
}

// Tell implements guard.Watcher. The message is an id, which of the nodes tells, and in
// how many milliseconds the guard is to be closed (16 bytes, 1, 4). An id alone is news of
// what has happened.
func (s *Store) Tell(ctx context.Context, about guard.News) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	message := append(append(make([]byte, 0, 21), about.ID[:]...), s.node)
	message = binary.BigEndian.AppendUint32(message, milliseconds(about.ClosedIn))
	return s.typed(s.redis().Publish(ctx, s.channel, message).Err())
}

// newsOf reads a message. What this node has told itself is no news.
func (s *Store) newsOf(message []byte) (about guard.News, ok bool) {
	if len(message) < len(about.ID) {
		return about, false
	}
	about.ID, message = guard.ID(message[:len(about.ID)]), message[len(about.ID):]
	switch {
	case len(message) == 0:
		return about, true
	case len(message) == 5 && message[0] != s.node:
		about.ClosedIn = time.Duration(binary.BigEndian.Uint32(message[1:])) * time.Millisecond
		return about, about.ClosedIn > 0
	}
	return about, false
}
