package redisstore

import (
	"context"
	_ "embed"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/streamguard/streamguard/guard"
)

var (
	//go:embed probe.lua
	probe       string
	probeScript = redis.NewScript(probe)

	// noUser begins names that are too long to be a user's.
	noUser = strings.Repeat("-", guard.MaxUser) + "probe"
)

var _ guard.Prober = (*Store)(nil)

// Probe implements guard.Prober. A server that answers may still be of no use,
// as a replica, a full one or one without the rights: so each does what the
// verbs do.
func (s *Store) Probe(ctx context.Context) []guard.Server {
	var one sync.Mutex
	var servers []guard.Server
	err := s.eachMaster(ctx, func(ctx context.Context, master *redis.Client) error {
		start := time.Now()
		err := s.works(ctx, master)
		one.Lock()
		defer one.Unlock()
		servers = append(servers, guard.Server{Name: s.server(master), Took: time.Since(start), Err: err})
		return nil
	})
	if err != nil { // it does not say who its masters are
		servers = append(servers, guard.Server{Name: s.where, Err: s.explain(err)})
	}
	return servers
}

// works reports why a master does not do what the verbs need.
func (s *Store) works(ctx context.Context, master *redis.Client) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	key, err := s.keyOf(ctx, master)
	if err != nil {
		return s.explain(err)
	}
	err = probeScript.Run(ctx, master, []string{key}).Err()
	if _, clustered := s.redis().(*redis.ClusterClient); clustered && elsewhere(err) {
		return nil // slots move, and it says where
	}
	if elsewhere(err) {
		s.join()
	}
	return s.explain(err)
}

// keyOf is a key that is no user's and that a master has.
func (s *Store) keyOf(ctx context.Context, master *redis.Client) (string, error) {
	for n := 0; ; n++ {
		key := s.key(noUser + strconv.Itoa(n))
		if who, err := s.master(ctx, key); err != nil || who == master || n == 1<<16 {
			return key, err
		}
	}
}
