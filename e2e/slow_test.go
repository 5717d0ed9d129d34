package e2e

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// timeouts are those of docs/security.md, as a test can wait for them.
const timeouts = `{
	servers {
		timeouts {
			read_header 2s
			read_body_idle 2s 1000
			write_idle 2s
			idle 2s
		}
	}
}
`

// Clients that are slow, say nothing or read nothing are let go of, and nobody
// waits for them.
func TestSlowClients(t *testing.T) {
	t.Parallel()
	n := start(t, timeouts+site(files, "limit 1", "store memory", "interval 10m"))
	id := decode[guard](t, n.want(t, 201, "mallory", "POST", "/guards", "")).GuardID
	n.client.CloseIdleConnections()
	before := n.goroutines(t)

	request := func(call, more string) string {
		return call + " HTTP/1.1\r\nHost: video\r\nX-User-Id: mallory\r\n" + more
	}
	body := "Content-Type: application/json\r\nContent-Length: 4000\r\n\r\n{"
	refused := request("GET "+target, "\r\n")
	var clients sync.WaitGroup
	for name, c := range map[string]slowClient{
		"silence":               {},
		"slow headers":          {request("GET "+target, "X-A: "), "a", false},
		"slow start":            {request("POST /guards", body), " ", false},
		"slow refresh":          {request("PATCH /guards/"+id, body), " ", false},
		"slow events":           {request("POST /guards/cmcd", body), " ", false},
		"slow release":          {request("POST /guards/00000000-0000-8000-8000-000000000000/release", body), " ", false},
		"slow request of media": {request("POST "+target, body), " ", false},
		"kept connection":       {refused, "", false},
		"asks and never reads":  {"", strings.Repeat(strings.Replace(refused, "mallory", "carol", 1), 1000), true}, // who may watch: a refusal is held back
	} {
		for range 2 {
			clients.Go(func() {
				if err := c.untilClosed(n.addr); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			})
		}
	}
	for range 50 {
		n.want(t, 200, "alice", "GET", target, "")
	}
	clients.Wait()
	n.client.CloseIdleConnections()
	eventually(t, "nothing is left of them", func() bool { return n.goroutines(t) <= before+5 })
	if l := n.guards(t, "mallory"); len(l.Guards) != 1 || l.Guards[0].GuardID != id {
		t.Errorf("mallory holds %+v, want the one they began with", l.Guards)
	}
}

// slowClient says something, and then something more again and again.
type slowClient struct {
	first, more string
	deaf        bool // reads nothing, and is in a hurry
}

// untilClosed returns when the server has had enough of the client.
func (c slowClient) untilClosed(addr string) error {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	talk := func() error {
		_, err := io.WriteString(conn, c.first)
		for c.more != "" && err == nil {
			_, err = io.WriteString(conn, c.more)
			if !c.deaf {
				time.Sleep(100 * time.Millisecond) // that is how slow it is
			}
		}
		return err
	}
	if c.deaf {
		err = talk()
	} else {
		go talk()
		_, err = io.Copy(io.Discard, conn)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return err // still open
	}
	return nil
}

// goroutines is how many the node has.
func (n *node) goroutines(t *testing.T) (total int) {
	t.Helper()
	r, err := http.NewRequest("GET", "http://localhost/debug/pprof/goroutine?debug=1", nil)
	if err != nil {
		t.Fatal(err)
	}
	profile := n.administer(t, r)
	if _, err := fmt.Sscanf(profile, "goroutine profile: total %d", &total); err != nil {
		t.Fatalf("%v in %.100s", err, profile)
	}
	return total
}
