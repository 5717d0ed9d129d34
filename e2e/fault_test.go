package e2e

import (
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/streamguard/streamguard/redisstore/redistest"
)

var hold = flag.Duration("fault.hold", 0, "how long a fault that viewers survive lasts at least")

// Whatever becomes of Redis: who plays goes on, who starts meanwhile is counted
// here, what was stopped stays stopped, and afterwards the count is exact again.
func TestFaultsOfRedis(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]func(t *testing.T, s *redistest.Server, meanwhile func()){
		"killed and back empty": killed,
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
		"cannot save, and refuses writes": func(t *testing.T, s *redistest.Server, meanwhile func()) {
			command(t, s, "CONFIG", "SET", "save", "3600 1")
			inTheWay := filepath.Join(strings.Fields(say(s, "CONFIG", "GET", "dir"))[1], "dump.rdb")
			if err := os.Mkdir(inTheWay, 0o700); err != nil {
				t.Fatal(err)
			}
			say(s, "BGSAVE")
			eventually(t, "writes are refused", func() bool { return strings.HasPrefix(say(s, "DEL", "none"), "MISCONF") })
			meanwhile()
			if err := os.Remove(inTheWay); err != nil {
				t.Fatal(err)
			}
			say(s, "BGSAVE")
		},
		"busy with a script": func(t *testing.T, s *redistest.Server, meanwhile func()) {
			command(t, s, "CONFIG", "SET", "busy-reply-threshold", "10")
			ended := make(chan string)
			go func() { ended <- say(s, "EVAL", "while true do end", "0") }()
			eventually(t, "it is busy", func() bool { return strings.HasPrefix(say(s, "PING"), "BUSY") })
			meanwhile()
			command(t, s, "SCRIPT", "KILL")
			<-ended
		},
		"loading": func(t *testing.T, s *redistest.Server, meanwhile func()) {
			command(t, s, "CONFIG", "SET", "rdbcompression", "no", "loading-process-events-interval-bytes", "1024")
			command(t, s, "DEBUG", "POPULATE", "2000", "other", "2000") // it answers once in a key
			command(t, s, "CONFIG", "SET", "key-load-delay", "100000")
			loaded := make(chan string)
			go func() { loaded <- say(s, "DEBUG", "RELOAD") }()
			eventually(t, "it is loading", func() bool { return strings.HasPrefix(say(s, "PING"), "LOADING") })
			meanwhile()
			if got := say(s, "PING"); !strings.HasPrefix(got, "LOADING") {
				t.Errorf("it was not loading all the time: %s", got)
			}
			command(t, s, "CONFIG", "SET", "key-load-delay", "0")
			if got := <-loaded; got != "OK" {
				t.Fatal(got)
			}
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
			s := redistest.Start(t, "--enable-debug-command", "local")
			survives(t, away(s.Addr), 200, func(meanwhile func()) { fault(t, s, meanwhile) })
		})
	}
}

func killed(t *testing.T, s *redistest.Server, meanwhile func()) {
	s.Kill()
	meanwhile()
	redistest.StartOn(t, s.Addr)
}

// Newcomers are told what on_store_error says; who plays goes on all the same.
func TestRedisKilledUnderEachPolicy(t *testing.T) {
	t.Parallel()
	for policy, newcomer := range map[string]int{"allow": 200, "deny": 503} {
		t.Run(policy, func(t *testing.T) {
			t.Parallel()
			s := redistest.Start(t)
			survives(t, away(s.Addr)+"\n\t\ton_store_error "+policy, newcomer, func(meanwhile func()) { killed(t, s, meanwhile) })
		})
	}
}

// Redis is well, the line to it is not.
func TestFaultsOfTheLineToRedis(t *testing.T) {
	t.Parallel()
	for name, trouble := range map[string]redistest.Trouble{
		"slower than timeout":   {Latency: 2 * time.Second},
		"answers do not come":   {NoAnswers: true},
		"cut off":               {NoRequests: true, NoAnswers: true},
		"connections are reset": {Breaks: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			line := redistest.NewLine(t, redistest.Start(t).Addr)
			survives(t, away(line.Addr), 200, func(meanwhile func()) {
				line.Set(trouble)
				meanwhile()
				line.Set(redistest.Trouble{})
			})
		})
	}
	t.Run("slow", func(t *testing.T) {
		t.Parallel()
		line := redistest.NewLine(t, redistest.Start(t).Addr)
		// It denies whom it cannot ask about, which is nobody.
		survives(t, inRedis(&redistest.Server{Addr: line.Addr}), 200, func(meanwhile func()) {
			line.Set(redistest.Trouble{Latency: 100 * time.Millisecond})
			meanwhile()
		})
	})
}

// away is the option of site for a Redis that is at fault for a while. On a busy
// machine one that is well may take longer than timeout is by default.
func away(addr string) string {
	return "store redis redis://" + addr + " {\n\t\t\ttimeout 2s\n\t\t}"
}

// survives has two viewers play and another start while the store is at fault;
// newcomer is the answer to that one.
func survives(t *testing.T, store string, newcomer int, fault func(meanwhile func())) {
	t.Helper()
	n := start(t, monitored(store, "playback auto", "limit 3", "interval 3s", "ttl 60s"))
	session := func(name string) *answer {
		t.Helper()
		return n.ask(t, "alice", "GET", target+"?"+name, "", "CMCD-Session", `sid="`+name+`"`, "User-Agent", name)
	}
	var held list
	eventually(t, "a playback is in Redis", func() bool {
		session("stopped")
		held, _ = n.listed(t, "alice")
		return len(held.Guards) == 1
	})
	eventually(t, "it is stopped", func() bool {
		return n.ask(t, "alice", "DELETE", "/guards/"+held.Guards[0].GuardID, "").status != 503
	})
	viewers := []*viewer{n.watch(t, "alice", mpd, endless), n.watch(t, "alice", mpd, endless)}

	fault(func() {
		for range 3 {
			if a := session("new"); a.status != newcomer {
				t.Fatalf("a newcomer was answered %d, want %d\n%s", a.status, newcomer, a.body)
			}
		}
		n.playOn(t, *hold, viewers...)
	})

	eventually(t, "all who play are in Redis", func() bool {
		held, ok := n.listed(t, "alice")
		// For a second after the fault it may count without the store still.
		if session("new").status != 200 || !ok || !n.none(t, "breaker_open") {
			return false
		}
		for _, v := range viewers {
			v.playing(t)
			if _, ok := held.find(v.guard); !ok {
				return false
			}
		}
		return len(held.Guards) == 3 // and what was stopped is not
	})
	refused(t, session("fourth"), 3)
	for _, a := range n.accesses(t, "alice") {
		expected := map[string]int{"new": newcomer, "fourth": 429}[a.Request.URI[strings.LastIndex(a.Request.URI, "?")+1:]]
		if a.Status >= 400 && a.Status != 499 && a.Status != expected {
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
