package redisstore

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/redis/go-redis/v9"

	"github.com/streamguard/streamguard/guard"
)

var errReplicaLate = errors.New("a replica has not answered in time just now")

// listOfReplica is what a replica says of a user's guards, judged by its own
// clock. It is asked for as long as half the store's timeout: the other half is
// the master's. A replica that takes longer is no reason for its breaker to
// open; for a second no list waits for one again.
func (s *Store) listOfReplica(ctx context.Context, user string) ([]guard.Guard, error) {
	if now() < s.replicaLate.Load() {
		return nil, errReplicaLate
	}
	guards, err := s.askReplica(ctx, user)
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		s.replicaLate.Store(now() + int64(probeAfter))
	}
	return guards, err
}

func (s *Store) askReplica(ctx context.Context, user string) ([]guard.Guard, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout/2)
	defer cancel()
	replica := s.replicas
	cluster, clustered := s.client.(*redis.ClusterClient)
	if clustered {
		var err error
		if replica, err = cluster.SlaveForKey(ctx, s.key(user)); err != nil {
			return nil, err
		}
	}
	pipe := replica.Pipeline()
	if clustered {
		pipe.ReadOnly(ctx) // or it would name the master
	}
	role, clock, value := pipe.Do(ctx, "ROLE"), pipe.Time(ctx), pipe.Get(ctx, s.key(user))
	if clustered {
		pipe.ReadWrite(ctx) // the connection is for calls of all kinds
	}
	pipe.Exec(ctx) // each command has its own error
	if err := follows(role); err != nil {
		return nil, err
	}
	now, err := clock.Result()
	if err != nil {
		return nil, err
	}
	switch text, err := value.Result(); err {
	case nil:
		l, err := parse([]any{now.UnixMilli(), text}, user)
		if err != nil {
			return nil, err
		}
		return l.guards, nil
	case redis.Nil:
		return nil, nil
	default:
		return nil, err
	}
}

// follows reports, by the answer to ROLE, that a replica hears of its master's
// writes; a master does in any case. What another replica has may be old.
func follows(role *redis.Cmd) error {
	is, err := role.Slice()
	if err != nil {
		return err
	}
	if len(is) > 3 && is[0] == "slave" && is[3] != "connected" {
		return fmt.Errorf("the replica has lost its master: %v", is[3])
	}
	return nil
}
