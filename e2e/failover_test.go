package e2e

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/streamguard/streamguard/redisstore/redistest"
)

// The master dies; the Sentinel makes its replica the master.
func TestSentinelFailover(t *testing.T) {
	t.Parallel()
	master := redistest.Start(t)
	redistest.Start(t, "--replicaof", "127.0.0.1 "+port(master))
	sentinel := redistest.StartSentinel(t, file(t, "sentinel.conf",
		"sentinel monitor guards 127.0.0.1 "+port(master)+" 1\n"+
			"sentinel down-after-milliseconds guards 1000\n"+
			"sentinel failover-timeout guards 5000\n"))
	eventually(t, "the Sentinel knows the replica", func() bool {
		return strings.Contains(say(sentinel, "SENTINEL", "REPLICAS", "guards"), "127.0.0.1")
	})
	survives(t, "store redis {\n\t\t\taddress "+sentinel.Addr+"\n\t\t\tmaster_name guards\n\t\t\ttimeout 2s\n\t\t}", 200, func(meanwhile func()) {
		master.Kill()
		meanwhile()
		eventually(t, "there is another master", func() bool {
			return !strings.Contains(say(sentinel, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", "guards"), port(master))
		})
	})
}

// In a Cluster of three masters with a replica each, the user's master dies; or
// the user's slot moves to another.
func TestClusterFaults(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]func(t *testing.T, owner, other *redistest.Server, meanwhile func()){
		"failover": func(t *testing.T, owner, other *redistest.Server, meanwhile func()) {
			owner.Kill()
			meanwhile()
			eventually(t, "the replica is the master", func() bool {
				moved := say(other, "GET", "sg:alice")
				return strings.HasPrefix(moved, "MOVED") && !strings.Contains(moved, port(owner))
			})
		},
		"slot moves": func(t *testing.T, owner, other *redistest.Server, meanwhile func()) {
			slot := say(owner, "CLUSTER", "KEYSLOT", "sg:alice")
			from, to := say(owner, "CLUSTER", "MYID"), say(other, "CLUSTER", "MYID")
			command(t, other, "CLUSTER", "SETSLOT", slot, "IMPORTING", from)
			command(t, owner, "CLUSTER", "SETSLOT", slot, "MIGRATING", to)
			meanwhile()
			command(t, owner, "MIGRATE", "127.0.0.1", port(other), "sg:alice", "0", "5000")
			meanwhile() // whoever asks the owner is sent on
			command(t, other, "CLUSTER", "SETSLOT", slot, "NODE", to)
			command(t, owner, "CLUSTER", "SETSLOT", slot, "NODE", to)
			meanwhile()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			servers, addrs := startCluster(t, 6, "--cluster-replicas", "1")
			var owner, other *redistest.Server
			eventually(t, "each master has its replica", func() bool {
				owner, other = nil, nil
				for _, s := range servers {
					if strings.HasPrefix(say(s, "ROLE"), "slave") {
						continue
					}
					if strings.HasPrefix(say(s, "GET", "sg:alice"), "MOVED") {
						other = s
					} else {
						owner = s
					}
				}
				return owner != nil && other != nil && strings.Count(say(owner, "CLUSTER", "NODES"), "slave") == 3 &&
					strings.Contains(say(owner, "INFO", "replication"), "state=online")
			})
			survives(t, "store redis {\n\t\t\taddress "+addrs+"\n\t\t\ttimeout 2s\n\t\t}", 200, func(meanwhile func()) { fault(t, owner, other, meanwhile) })
		})
	}
}

// A server of a Cluster is away and has no replica. That is the concern of its
// own users; the others are counted exactly all the time.
func TestClusterWithoutAShard(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]func(t *testing.T, s *redistest.Server, meanwhile func()){
		"killed": func(t *testing.T, s *redistest.Server, meanwhile func()) {
			dir := strings.Fields(say(s, "CONFIG", "GET", "dir"))[1] // where it keeps who is in the Cluster
			s.Kill()
			meanwhile()
			redistest.StartOn(t, s.Addr, append(ofCluster, "--dir", dir)...)
		},
		"hangs": func(t *testing.T, s *redistest.Server, meanwhile func()) {
			s.Pause()
			meanwhile()
			s.Resume()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			servers, addrs := startCluster(t, 3)
			owner := servers[slices.IndexFunc(servers, func(s *redistest.Server) bool { return say(s, "GET", "sg:alice") == "" })]
			store := "store redis {\n\t\t\taddress " + addrs
			survives(t, store+"\n\t\t\ttimeout 2s\n\t\t}", 200, func(meanwhile func()) {
				n := start(t, quiet(store+"\n\t\t\ttimeout 10s\n\t\t}", "on_store_error deny"))
				var others []string
				for i := 0; len(others) < 6; i++ {
					user := fmt.Sprint("user", i)
					if strings.HasPrefix(say(owner, "GET", "sg:"+user), "MOVED") {
						others = append(others, user)
					}
				}
				fault(t, owner, func() {
					meanwhile()
					n.countsExactly(t, others, "alice")
				})
				eventually(t, "it answers again", func() bool { return n.ask(t, "alice", "GET", "/guards", "").status == 200 })
			})
		})
	}
}

// countsExactly has users start and stop while the store cannot answer about
// one who asks all the time.
func (n *node) countsExactly(t *testing.T, users []string, away string) {
	t.Helper()
	over := make(chan struct{})
	var all sync.WaitGroup
	for _, user := range users {
		all.Go(func() {
			ask := func(want int, method, path string) (location string) {
				a, err := n.send(user, method, path, "")
				if err != nil {
					t.Error(err)
					return ""
				}
				if a.status != want {
					t.Errorf("%s %s of %s was answered %d, want %d\n%s", method, path, user, a.status, want, a.body)
				}
				return a.header.Get("Location")
			}
			for !t.Failed() {
				select {
				case <-over:
					return
				default:
				}
				var made []string
				for range 3 {
					made = append(made, ask(201, "POST", "/guards"))
				}
				ask(429, "POST", "/guards")
				for _, location := range made {
					ask(204, "DELETE", location)
				}
			}
		})
	}
	var asking sync.WaitGroup
	for range 3 {
		asking.Go(func() {
			if a, err := n.send(away, "GET", "/guards", ""); err != nil || a.status != 503 {
				t.Errorf("%s was answered %+v, %v, want 503", away, a, err)
			}
		})
	}
	asking.Wait()
	close(over)
	all.Wait()
}

// ofCluster is what a server of a Cluster is started with. A slot that nobody
// serves is the concern of its own keys.
var ofCluster = []string{"--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-require-full-coverage", "no",
	"--repl-diskless-sync-delay", "0", "--cluster-replica-validity-factor", "0"}

// startCluster returns when the servers are one, with their addresses for a
// Caddyfile.
func startCluster(t *testing.T, size int, options ...string) (servers []*redistest.Server, addresses string) {
	t.Helper()
	args := []string{"--cluster", "create"}
	for range size {
		s := redistest.Start(t, ofCluster...)
		servers, args = append(servers, s), append(args, s.Addr)
	}
	addresses = strings.Join(args[2:], " ")
	if out, err := exec.Command("redis-cli", slices.Concat(args, options, []string{"--cluster-yes"})...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	eventually(t, "the Cluster has come together", func() bool {
		return !slices.ContainsFunc(servers, func(s *redistest.Server) bool {
			return !strings.Contains(say(s, "CLUSTER", "INFO"), "cluster_state:ok")
		})
	})
	return servers, addresses
}
