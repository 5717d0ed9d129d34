package redisstore

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/redis/go-redis/v9"

	"github.com/streamguard/streamguard/guard"
)

// master is the server for a key.
func (s *Store) master(ctx context.Context, key string) (*redis.Client, error) {
	switch c := s.redis().(type) {
	case *redis.ClusterClient:
		return c.MasterForKey(ctx, key)
	case *redis.Client:
		return c, nil
	default:
		return nil, fmt.Errorf("unexpected client %T", c)
	}
}

// call runs a script, in one round trip with other calls. In a Cluster these are
// to the same server: the client's own way, which is to send out together what
// goes to several, has everybody wait for one that hangs.
func (s *Store) call(ctx context.Context, script *redis.Script, key string, args ...any) (any, error) {
	server, err := s.master(ctx, key)
	if err != nil {
		return nil, err
	}
	var reply any
	calls, err := server.AutoPipeline()
	if err == nil {
		reply, err = script.Run(ctx, calls, []string{key}, args...).Result()
	}
	if elsewhere(err) {
		s.join()
		return script.Run(ctx, s.redis(), []string{key}, args...).Result() // which goes where it is sent
	}
	return reply, err
}

// elsewhere reports whether a server of a Cluster is not the one for a key, not
// now, or no more.
func elsewhere(err error) bool {
	_, moved := redis.IsMovedError(err)
	_, ask := redis.IsAskError(err)
	return moved || ask || errors.Is(err, redis.ErrClosed)
}

// byServer has each server asked for what it is to answer, all at once; at is
// where its requests stand. Its error means that none was.
func (s *Store) byServer(ctx context.Context, requests []guard.Request, ask func(server *redis.Client, at []int)) error {
	servers := make(map[*redis.Client][]int)
	for i, r := range requests {
		server, err := s.master(ctx, s.key(r.Claim.User))
		if err != nil {
			return err // nothing is known of the Cluster
		}
		servers[server] = append(servers[server], i)
	}
	var all sync.WaitGroup
	for server, at := range servers {
		all.Go(func() { ask(server, at) })
	}
	all.Wait()
	return nil
}
