package redisstore

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
)

// Node is how a Redis server does, and what it says of itself (INFO).
type Node struct {
	Server string // host:port, or the master's name behind Sentinels
	Err    error  // a master does not do what the verbs need, a replica does not answer
	Mute   error  // it does not say anything of itself: the rest is zero

	Memory, MaxMemory  float64 // bytes; MaxMemory is 0 without a bound
	CPUSystem, CPUUser float64 // seconds since its start
	Commands           float64 // processed since its start; a script is one, and so is each call it makes
	Reads, Writes      float64 // of these GET and MGET, and SET: one for each guard that is asked for or changed
	Clients            float64 // connected
	ReplicationLag     float64 // bytes that the last of its replicas is behind
}

// Nodes asks every server, replicas of a Cluster too, all at once.
func (s *Store) Nodes(ctx context.Context) []Node {
	var (
		mu    sync.Mutex
		nodes []Node
	)
	masters := make(map[*redis.Client]bool)
	s.eachMaster(ctx, func(_ context.Context, c *redis.Client) error {
		mu.Lock()
		defer mu.Unlock()
		masters[c] = true
		return nil
	})
	err := s.each(ctx, (*redis.ClusterClient).ForEachShard, func(ctx context.Context, c *redis.Client) error {
		n := Node{Server: s.server(c)}
		info, err := c.Info(ctx, "everything").Result()
		if n.Mute = s.explain(err); err == nil {
			n.read(info)
		}
		switch {
		case masters[c]:
			n.Err = s.works(ctx, c)
		case !answered(err):
			n.Err = n.Mute
		}
		mu.Lock()
		defer mu.Unlock()
		nodes = append(nodes, n)
		return nil
	})
	if err != nil { // it does not say who its servers are
		nodes = append(nodes, Node{Server: s.where, Err: s.explain(err), Mute: err})
	} else if _, clustered := s.redis().(*redis.ClusterClient); clustered {
		members := make(map[string]bool)
		for _, n := range nodes {
			members[n.Server] = true
		}
		s.members.Store(&members)
	}
	slices.SortFunc(nodes, func(a, b Node) int { return strings.Compare(a.Server, b.Server) })
	return nodes
}

// server is the name of a client's server.
func (s *Store) server(c *redis.Client) string {
	if addr := c.Options().Addr; addr != "FailoverClient" {
		return addr
	}
	return s.where
}

// read takes what a Node has from the text of INFO.
func (n *Node) read(info string) {
	fields := make(map[string]string)
	for line := range strings.SplitSeq(info, "\r\n") {
		if name, value, ok := strings.Cut(line, ":"); ok {
			fields[name] = value
		}
	}
	number := func(name string) float64 {
		f, _ := strconv.ParseFloat(fields[name], 64)
		return f
	}
	calls := func(command string) float64 {
		f, _ := strconv.ParseFloat(part(fields["cmdstat_"+command], "calls"), 64)
		return f
	}
	n.Memory, n.MaxMemory = number("used_memory"), number("maxmemory")
	n.CPUSystem, n.CPUUser = number("used_cpu_sys"), number("used_cpu_user")
	n.Commands = number("total_commands_processed")
	n.Reads, n.Writes = calls("get")+calls("mget"), calls("set")
	n.Clients = number("connected_clients")
	for i := range int(number("connected_slaves")) {
		offset, err := strconv.ParseFloat(part(fields["slave"+strconv.Itoa(i)], "offset"), 64)
		if err == nil {
			n.ReplicationLag = max(n.ReplicationLag, number("master_repl_offset")-offset)
		}
	}
}

// part is the value of a name in "name=value,name=value".
func part(text, name string) string {
	for pair := range strings.SplitSeq(text, ",") {
		if value, ok := strings.CutPrefix(pair, name+"="); ok {
			return value
		}
	}
	return ""
}

// Pool is what the store's connections are doing; in a Cluster of all servers.
type Pool struct{ Idle, Used, Timeouts int }

// Pool returns it as it is now.
func (s *Store) Pool() Pool {
	p := *s.redis().PoolStats()
	if s.replicas != nil {
		r := s.replicas.PoolStats()
		p.IdleConns, p.TotalConns, p.Timeouts = p.IdleConns+r.IdleConns, p.TotalConns+r.TotalConns, p.Timeouts+r.Timeouts
	}
	return Pool{int(p.IdleConns), int(p.TotalConns) - int(p.IdleConns), int(p.Timeouts)}
}

// Away returns whether each server that was called so far is held to be away.
// Once Nodes knows a Cluster, that is its servers: another is never called
// again, and would be away for good.
func (s *Store) Away() map[string]bool {
	away := make(map[string]bool)
	members := s.members.Load()
	s.breakers.Range(func(server, b any) bool {
		if name := server.(string); members == nil || (*members)[name] {
			away[name] = b.(breaker).isOpen()
		}
		return true
	})
	return away
}
