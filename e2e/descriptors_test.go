package e2e

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/streamguard/streamguard/redisstore/redistest"
)

// More clients connect than the node has file descriptors for, and Redis hangs
// up on it meanwhile: who is connected is served, and who plays goes on.
func TestOutOfFileDescriptors(t *testing.T) {
	t.Parallel()
	const descriptors, clients = 1024, 3000
	redis := redistest.Start(t)
	n := start(t, site("respond ok", "store redis redis://"+redis.Addr+" {\n\t\t\ttimeout 10s\n\t\t}", "interval 3s", "ttl 60s"))
	// All ask over one connection: the kernel would take another for a node that
	// cannot.
	n.client.Transport = &http.Transport{MaxConnsPerHost: 1}
	plays := func(user string) bool {
		a, err := n.segment(user, "plays")
		if err != nil || a.status != 200 {
			t.Errorf("%s was answered %+v, %v", user, a, err)
		}
		return !t.Failed()
	}
	was := make(map[string]guard)
	for i := range 6 {
		user := fmt.Sprint("user", i)
		plays(user)
		was[user] = n.guards(t, user).Guards[0]
	}
	over := make(chan struct{})
	var playing sync.WaitGroup
	defer playing.Wait()
	defer close(over)
	var played atomic.Int64
	for user := range was {
		playing.Go(func() {
			tick := time.NewTicker(100 * time.Millisecond)
			defer tick.Stop()
			for plays(user) {
				played.Add(1)
				select {
				case <-over:
					return
				case <-tick.C:
				}
			}
		})
	}
	// goOn returns when all have been served some more and their guards refreshed.
	goOn := func() {
		t.Helper()
		from := played.Load()
		eventually(t, "who plays goes on", func() bool { return t.Failed() || played.Load() >= from+100 })
		for user, before := range was {
			eventually(t, "a guard is refreshed", func() bool {
				a, err := n.send(user, "GET", "/guards", "")
				if err != nil || a.status != 200 {
					return false
				}
				is, ok := decode[list](t, a).find(before.GuardID)
				if !ok || !is.CreatedAt.Equal(before.CreatedAt) {
					t.Fatalf("%s has lost its guard: %s", user, a.body)
				}
				was[user] = is
				return is.ExpiresAt.After(before.ExpiresAt)
			})
		}
	}

	limit := exec.Command("prlimit", "--pid", fmt.Sprint(n.cmd.Process.Pid), fmt.Sprintf("--nofile=%d:%[1]d", descriptors))
	if out, err := limit.CombinedOutput(); err != nil {
		t.Fatalf("prlimit (Debian: apt-get install util-linux): %v: %s", err, out)
	}
	var served atomic.Int64
	var crowd []net.Conn
	disperse := func() {
		for _, conn := range crowd {
			conn.Close()
		}
	}
	defer disperse()
	for range clients {
		conn, err := net.Dial("tcp", n.addr)
		if err != nil {
			t.Fatal(err)
		}
		crowd = append(crowd, conn)
		fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", n.addr)
		go func() {
			if line, _ := bufio.NewReader(conn).ReadString('\n'); strings.HasPrefix(line, "HTTP/1.1 200") {
				served.Add(1)
			}
		}()
	}
	eventually(t, "all who found a descriptor are served", func() bool { return served.Load() > descriptors*9/10 })
	goOn()
	plays("newcomer")
	if n := served.Load(); n >= descriptors {
		t.Errorf("%d connections with %d descriptors", n, descriptors)
	}
	say(redis, "CLIENT", "KILL", "TYPE", "normal")
	from := played.Load()
	eventually(t, "who plays goes on without Redis, too", func() bool { return t.Failed() || played.Load() >= from+100 })
	plays("another newcomer")

	disperse()
	goOn()
	for _, user := range []string{"newcomer", "another newcomer"} {
		eventually(t, user+" is counted", func() bool {
			plays(user)
			a, err := n.send(user, "GET", "/guards", "")
			return err == nil && a.status == 200 && len(decode[list](t, a).Guards) == 1
		})
	}
}
