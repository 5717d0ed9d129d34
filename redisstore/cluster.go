package redisstore

import (
	"context"
	"fmt"

	"github.com/redis/go-redis/v9"
)

// redis is the client of the moment.
func (s *Store) redis() redis.UniversalClient {
	if c := s.cluster.Load(); c != nil {
		return c
	}
	return s.client
}

// newCluster makes a client with a breaker in front of each server. A master
// that is away may be one no more: the client itself would find out only after
// a minute, for calls that a breaker stops tell it nothing.
func (s *Store) newCluster(options *redis.UniversalOptions) *redis.ClusterClient {
	o := options.Cluster()
	o.DisableRoutingPolicies = true // which ask three servers what commands there are
	c := redis.NewClusterClient(o)
	reload := func() { c.ReloadState(context.Background()) }
	c.OnNewNode(func(node *redis.Client) { s.breaks(s.server(node), node, reload) })
	return c
}

// meet hears, on the first connection to a single server, what it is. A server
// or a proxy without HELLO does not say: then MOVED will.
func (s *Store) meet(ctx context.Context, c *redis.Conn) error {
	if s.met.Load() {
		return nil
	}
	says, err := c.Do(ctx, "HELLO").Result()
	if err != nil && !answered(err) {
		return err
	}
	switch mode(says) {
	case "sentinel":
		return fmt.Errorf("address: %s is a Sentinel: name the master that it watches as master_name", s.where)
	case "cluster":
		s.join()
	}
	s.met.Store(true)
	return nil
}

// mode is what a server says in its answer to HELLO, which is a map or, in the
// older protocol, a list.
func mode(hello any) any {
	switch h := hello.(type) {
	case map[any]any:
		return h["mode"]
	case []any:
		for i := 0; i+1 < len(h); i += 2 {
			if h[i] == "mode" {
				return h[i+1]
			}
		}
	}
	return nil
}

// join has a store whose single server is one of a Cluster go on with them all.
// What the server answered until then stands: it has the keys that it answers
// for. Its connections remain until the store is closed.
func (s *Store) join() {
	s.joining.Lock()
	defer s.joining.Unlock()
	if s.options == nil || s.options.DB != 0 || s.closed || s.cluster.Load() != nil {
		return
	}
	s.cluster.Store(s.newCluster(s.options))
}
