package e2e

import (
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"

	"github.com/streamguard/streamguard/redisstore/redistest"
)

// Whatever becomes of Redis: who plays goes on, who starts meanwhile is counted
// here, what was stopped stays stopped, and afterwards the count is exact again.
func TestFaultsOfRedis(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]func(t *testing.T, s *redistest.Server, meanwhile func()){
		"killed and back empty": func(t *testing.T, s *redistest.Server, meanwhile func()) {
			s.Kill()
			meanwhile()
			redistest.StartOn(t, s.Addr)
		},
		"hangs": func(_ *testing.T, s *redistest.Server, meanwhile func()) {
			s.Pause()
			meanwhile()
			s.Resume()
		},
		"flushed": func(t *testing.T, s *redistest.Server, meanwhile func()) {
			command(t, s, "FLUSHALL")
			meanwhile()
		},
		"out of memory": func(t *testing.T, s *redistest.Server, meanwhile func()) {
			command(t, s, "CONFIG", "SET", "maxmemory", "1")
			meanwhile()
			command(t, s, "CONFIG", "SET", "maxmemory", "0")
		},
		"read-only, as a master that was demoted": func(t *testing.T, s *redistest.Server, meanwhile func()) {
			command(t, s, "REPLICAOF", "127.0.0.1", "1")
			meanwhile()
			command(t, s, "REPLICAOF", "NO", "ONE")
		},
		"no more connections": func(t *testing.T, s *redistest.Server, meanwhile func()) {
			only, err := net.Dial("tcp", s.Addr)
			if err != nil {
				t.Fatal(err)
			}
			defer only.Close()
			fmt.Fprint(only, "CLIENT KILL TYPE normal SKIPME yes\r\nCLIENT KILL TYPE pubsub\r\nCONFIG SET maxclients 1\r\n")
			eventually(t, "nobody else connects", func() bool { return strings.Contains(say(s, "PING"), "max number of clients") })
			meanwhile()
			fmt.Fprint(only, "CONFIG SET maxclients 1000\r\n")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := redistest.Start(t)
			survives(t, "store redis redis://"+s.Addr, func(meanwhile func()) { fault(t, s, meanwhile) })
		})
	}
}

// survives has two viewers play and another start while the store is at fault.
func survives(t *testing.T, store string, fault func(meanwhile func())) {
	t.Helper()
	n := start(t, site(files, store, "playback path", "limit 3", "interval 3s", "ttl 60s"))
	session := func(want int, name string) {
		t.Helper()
		n.want(t, want, "alice", "GET", "/media/cmaf/master.m3u8?"+name, "", "CMCD-Session", `sid="`+name+`"`)
	}
	session(200, "stopped")
	n.want(t, 204, "alice", "DELETE", "/guards/"+n.guards(t, "alice").Guards[0].GuardID, "")
	viewers := []*viewer{n.watch(t, "alice", mpd, endless), n.watch(t, "alice", mpd, endless)}

	fault(func() {
		for range 3 {
			session(200, "new")
		}
		for _, v := range viewers {
			v.playing(t)
		}
	})

	eventually(t, "all who play are in Redis", func() bool {
		session(200, "new")
		a, err := n.send("alice", "GET", "/guards", "")
		if err != nil || a.status != 200 {
			return false
		}
		held := decode[list](t, a)
		for _, v := range viewers {
			v.playing(t)
			if _, ok := held.find(v.guard); !ok {
				return false
			}
		}
		return len(held.Guards) == 3 // and what was stopped is not
	})
	session(429, "fourth")
	for _, a := range n.accesses(t, "alice") {
		if a.Status >= 400 && a.Status != 499 && !strings.HasSuffix(a.Request.URI, "fourth") {
			t.Errorf("%s %s was answered %d", a.Request.Method, a.Request.URI, a.Status)
		}
	}
}

// command gives Redis a command that it is to carry out.
func command(t *testing.T, s *redistest.Server, words ...string) {
	t.Helper()
	if got := say(s, words...); got != "OK" {
		t.Fatalf("%q: %s", words, got)
	}
}

// say is what redis-cli prints about a command.
func say(s *redistest.Server, words ...string) string {
	out, err := exec.Command("redis-cli", append([]string{"-p", port(s)}, words...)...).CombinedOutput()
	if err != nil {
		return fmt.Sprintf("%s%v", out, err)
	}
	return strings.TrimSpace(string(out))
}

func port(s *redistest.Server) string {
	_, port, _ := net.SplitHostPort(s.Addr)
	return port
}
