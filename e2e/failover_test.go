package e2e

import (
	"os/exec"
	"strings"
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
	survives(t, "store redis {\n\t\t\taddress "+sentinel.Addr+"\n\t\t\tmaster_name guards\n\t\t}", 200, func(meanwhile func()) {
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
			var servers []*redistest.Server
			args := []string{"--cluster-replicas", "1", "--cluster-yes"}
			var addrs []string
			for range 6 {
				s := redistest.Start(t, "--cluster-enabled", "yes", "--cluster-node-timeout", "1000",
					"--repl-diskless-sync-delay", "0", "--cluster-replica-validity-factor", "0")
				servers, addrs = append(servers, s), append(addrs, s.Addr)
			}
			if out, err := exec.Command("redis-cli", append(append([]string{"--cluster", "create"}, addrs...), args...)...).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			var owner, other *redistest.Server
			eventually(t, "the Cluster has come together", func() bool {
				owner, other = nil, nil
				for _, s := range servers {
					if !strings.Contains(say(s, "CLUSTER", "INFO"), "cluster_state:ok") {
						return false
					}
					if strings.HasPrefix(say(s, "ROLE"), "slave") {
						continue
					}
					if strings.HasPrefix(say(s, "GET", "sg:alice"), "MOVED") {
						other = s
					} else {
						owner = s
					}
				}
				// Each master must have its replica.
				return owner != nil && other != nil && strings.Count(say(owner, "CLUSTER", "NODES"), "slave") == 3 &&
					strings.Contains(say(owner, "INFO", "replication"), "state=online")
			})
			survives(t, "store redis {\n\t\t\taddress "+strings.Join(addrs, " ")+"\n\t\t}", 200, func(meanwhile func()) { fault(t, owner, other, meanwhile) })
		})
	}
}
