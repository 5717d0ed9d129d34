package redisstore

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/redisstore/redistest"
)

// until waits until a condition holds.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// told is a server of a test, and a client of its own for asking it.
type told struct {
	*redistest.Server
	*redis.Client
}

// tell starts a server to which the gate has the least rights, and these besides.
func tell(t *testing.T, rights string, args ...string) told {
	t.Helper()
	least := "--user gate on >secret ~sg:* &ended:sg: -@all +evalsha +eval +get +set +time +publish +subscribe +unsubscribe +ping +hello " + rights
	s := redistest.Start(t, append(strings.Fields(least), args...)...)
	return told{s, client(t, s.Addr)}
}

// client is one of the test's own.
func client(t *testing.T, addr string) *redis.Client {
	c := redis.NewClient(&redis.Options{Addr: addr, PoolSize: 1})
	t.Cleanup(func() { c.Close() })
	return c
}

// calls is how often the server has run a command.
func (s told) calls(t *testing.T, command string) string {
	t.Helper()
	info, err := s.Info(t.Context(), "commandstats").Result()
	if err != nil {
		t.Fatal(err)
	}
	_, stats, _ := strings.Cut(info, "cmdstat_"+command+":")
	return part(strings.SplitN(stats, "\r\n", 2)[0], "calls")
}

func (s told) do(t *testing.T, args ...any) {
	t.Helper()
	if err := s.Do(t.Context(), args...).Err(); err != nil {
		t.Fatalf("%q: %v", args, err)
	}
}

func (s told) hasReplica(t *testing.T) bool {
	return strings.Contains(s.Info(t.Context(), "replication").Val(), "state=online")
}

// listsFromReplica has a store list a guard while its replica comes and goes.
func listsFromReplica(t *testing.T, s *Store, user string, master, replica told) {
	t.Helper()
	if v, err := s.Acquire(t.Context(), claim(user, "1"), policy); err != nil || v.Outcome != guard.Admitted {
		t.Fatal(v.Outcome, err)
	}
	until(t, "the replica has the guard", func() bool {
		return replica.DBSize(t.Context()).Val() == 1
	})
	list := func(ctx context.Context) {
		t.Helper()
		if guards, err := s.List(ctx, user); err != nil || len(guards) != 1 {
			t.Fatalf("list: %v, %v", guards, err)
		}
	}
	display := guard.ForDisplay(t.Context())
	// by has lists come from one server.
	by := func(who told, when string) {
		t.Helper()
		until(t, when, func() bool {
			before := who.calls(t, "get")
			list(display)
			return who.calls(t, "get") != before
		})
	}

	before := master.calls(t, "get")
	for range 3 {
		list(display)
	}
	if replica.calls(t, "get") != "3" || master.calls(t, "get") != before {
		t.Errorf("of 3 lists the replica has answered %s", replica.calls(t, "get"))
	}
	list(t.Context())
	if replica.calls(t, "get") != "3" || replica.calls(t, "evalsha") != "" || replica.calls(t, "eval") != "" {
		t.Error("the replica was asked for more than lists for display")
	}

	replica.Pause()
	by(master, "the master answers for a replica that hangs")
	replica.Resume()
	by(replica, "the replica answers again")
	master.do(t, "CONFIG", "SET", "requirepass", "changed")
	master.do(t, "CLIENT", "KILL", "TYPE", "replica")
	by(master, "the master answers for a replica that is cut off from it")
	master.do(t, "CONFIG", "SET", "requirepass", "")
	by(replica, "the replica answers when it follows again")
	replica.Kill()
	by(master, "the master answers for a replica that was killed")
	if v, err := s.Acquire(t.Context(), claim(user, "1"), policy); err != nil || v.Outcome != guard.Refreshed {
		t.Error(v.Outcome, err)
	}
}

func TestListsFromReplicaBehindSentinels(t *testing.T) {
	master := tell(t, "+role", "--repl-diskless-sync-delay", "0")
	host, port, _ := net.SplitHostPort(master.Addr)
	replica := tell(t, "+role", "--replicaof", host+" "+port)
	until(t, "the replica is in step", func() bool { return master.hasReplica(t) })
	config := filepath.Join(t.TempDir(), "sentinel.conf")
	if err := os.WriteFile(config, []byte("sentinel monitor guards 127.0.0.1 "+port+" 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	sentinel := redistest.StartSentinel(t, config)
	asked := redis.NewSentinelClient(&redis.Options{Addr: sentinel.Addr})
	defer asked.Close()
	until(t, "the Sentinel has heard from the replica", func() bool {
		known := asked.Replicas(t.Context(), "guards").Val()
		return len(known) == 1 && known[0]["flags"] == "slave" && known[0]["master-link-status"] == "ok"
	})
	rights := "ACL SETUSER gate on >secret &+switch-master &+replica-reconf-done -@all +sentinel|get-master-addr-by-name +sentinel|sentinels +sentinel|replicas +subscribe +unsubscribe +ping +hello"
	var args []any
	for _, word := range strings.Fields(rights) {
		args = append(args, word)
	}
	command := redis.NewStatusCmd(t.Context(), args...)
	if err := asked.Process(t.Context(), command); err != nil {
		t.Fatal(err)
	}
	s := open(t, Options{
		Addresses: []string{sentinel.Addr}, MasterName: "guards", ReadFrom: ReadFromReplica, Timeout: 4 * time.Second,
		Username: "gate", Password: "secret", SentinelUsername: "gate", SentinelPassword: "secret",
	})
	listsFromReplica(t, s, "u", master, replica)
}

// Two masters with a replica each.
func TestListsFromReplicaInACluster(t *testing.T) {
	var servers []told
	var addrs []string
	for range 4 {
		s := tell(t, "+role +readonly +readwrite +cluster|slots", "--cluster-enabled", "yes", "--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1")
		servers, addrs = append(servers, s), append(addrs, s.Addr)
	}
	for i, s := range servers {
		if i < 2 {
			s.do(t, "CLUSTER", "ADDSLOTSRANGE", i*8192, (i+1)*8192-1)
		}
		host, port, _ := net.SplitHostPort(s.Addr)
		servers[0].do(t, "CLUSTER", "MEET", host, port)
	}
	for i, replica := range servers[2:] {
		id := servers[i].ClusterMyID(t.Context()).Val()
		until(t, "a replica has met its master", func() bool { return replica.ClusterReplicate(t.Context(), id).Err() == nil })
	}
	until(t, "the Cluster has come together", func() bool {
		for _, s := range servers {
			ranges, err := s.Do(t.Context(), "CLUSTER", "SLOTS").Slice()
			if err != nil || len(ranges) != 2 || slices.ContainsFunc(ranges, withoutReplica) || !strings.Contains(s.ClusterInfo(t.Context()).Val(), "cluster_state:ok") {
				return false
			}
		}
		return true
	})
	s := open(t, Options{Addresses: addrs, ReadFrom: ReadFromReplica, Timeout: 4 * time.Second, Username: "gate", Password: "secret"})
	// A user of the second master's.
	user := 0
	for servers[1].ClusterKeySlot(t.Context(), s.key(strconv.Itoa(user))).Val() < 8192 {
		user++
	}
	listsFromReplica(t, s, strconv.Itoa(user), servers[1], servers[3])
}

// withoutReplica reports of a range of slots (first, last, master, …) that
// nobody but its master has it.
func withoutReplica(slots any) bool { return len(slots.([]any)) < 4 }
