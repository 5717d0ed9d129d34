package redisstore

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/redisstore/redistest"
)

// sentinelConfig is a file for a Sentinel that watches a master as "guards".
func sentinelConfig(t *testing.T, master string, lines ...string) string {
	t.Helper()
	host, port, _ := net.SplitHostPort(master)
	config := filepath.Join(t.TempDir(), "sentinel.conf")
	lines = append(lines, "sentinel monitor guards "+host+" "+port+" 1\n")
	if err := os.WriteFile(config, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	return config
}

// A server that answers is not one that works. What it says of itself is known
// all the same, and no user's guards are changed.
func TestProbeDoesWhatTheVerbsDo(t *testing.T) {
	for name, c := range map[string]struct {
		trouble func(*testing.T, told)
		want    string
	}{
		"a replica":       {func(t *testing.T, s told) { s.do(t, "REPLICAOF", "127.0.0.1", "1") }, "READONLY"},
		"no right":        {func(t *testing.T, s told) { s.do(t, "ACL", "SETUSER", "gate", "-evalsha") }, "NOPERM"},
		"no right to set": {func(t *testing.T, s told) { s.do(t, "ACL", "SETUSER", "gate", "-set") }, "can't run this command"},
		"other keys":      {func(t *testing.T, s told) { s.do(t, "ACL", "SETUSER", "gate", "resetkeys", "~other:*") }, "NOPERM"},
		"full":            {func(t *testing.T, s told) { s.do(t, "CONFIG", "SET", "maxmemory", "1") }, "OOM"},
		"not persistent": {func(t *testing.T, s told) {
			s.do(t, "CONFIG", "SET", "save", "1 1")
			s.do(t, "SET", "x", "1")
			dir := s.ConfigGet(t.Context(), "dir").Val()["dir"]
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
			until(t, "a snapshot has gone wrong", func() bool {
				return strings.Contains(s.Info(t.Context(), "persistence").Val(), "rdb_last_bgsave_status:err")
			})
		}, "MISCONF"},
		"no replicas": {func(t *testing.T, s told) { s.do(t, "CONFIG", "SET", "min-replicas-to-write", "1") }, "NOREPLICAS"},
	} {
		t.Run(name, func(t *testing.T) {
			server := tell(t, "+info")
			s := open(t, Options{Addresses: []string{server.Addr}, Username: "gate", Password: "secret"})
			acquires(t, s, guard.Admitted, "1", guard.Play)
			if probed := s.Probe(t.Context()); len(probed) != 1 || probed[0].Err != nil || probed[0].Took == 0 {
				t.Errorf("probe: %+v", probed)
			}
			if n := s.Nodes(t.Context())[0]; n.Err != nil || n.Mute != nil || n.Memory == 0 {
				t.Errorf("metrics: %+v", n)
			}
			before := server.Get(t.Context(), s.key("u")).Val()
			c.trouble(t, server)
			if probed := s.Probe(t.Context()); probed[0].Err == nil || !strings.Contains(probed[0].Err.Error(), c.want) {
				t.Errorf("probe: %+v, want %s", probed, c.want)
			}
			if n := s.Nodes(t.Context())[0]; n.Err == nil || !strings.Contains(n.Err.Error(), c.want) || n.Mute != nil || n.Memory == 0 {
				t.Errorf("metrics: %+v, want %s", n, c.want)
			}
			if after := server.Get(t.Context(), s.key("u")).Val(); after != before || after == "" {
				t.Errorf("the user's value was %q and is %q", before, after)
			}
		})
	}
}

// Where INFO is not allowed the server is up all the same.
func TestServerThatSaysNothingOfItselfIsUp(t *testing.T) {
	server := tell(t, "")
	s := open(t, Options{Addresses: []string{server.Addr}, Username: "gate", Password: "secret"})
	if n := s.Nodes(t.Context())[0]; n.Err != nil || n.Mute == nil {
		t.Errorf("%+v, want it up and mute", n)
	}
}

func TestProbeLeavesNoUser(t *testing.T) {
	server := redistest.Start(t)
	s := open(t, Options{Addresses: []string{server.Addr}})
	if probed := s.Probe(t.Context()); probed[0].Err != nil {
		t.Fatal(probed)
	}
	if err := s.Walk(t.Context(), func(user string, _ []guard.Guard) { t.Errorf("met %q", user) }); err != nil {
		t.Error(err)
	}
	until(t, "nothing is left", func() bool { return s.client.DBSize(t.Context()).Val() == 0 })
}
