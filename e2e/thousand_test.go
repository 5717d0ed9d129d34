package e2e

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/streamguard/streamguard/redisstore/redistest"
)

// player is a client with a connection of its own, which it keeps.
type player struct {
	http.Client
	base, user string
	received   atomic.Int64 // bytes of an endless answer
}

func (n *node) player(t *testing.T, user string) *player {
	transport := new(http.Transport)
	t.Cleanup(transport.CloseIdleConnections)
	return &player{Client: http.Client{Transport: transport, Timeout: patience}, base: "http://" + n.addr, user: user}
}

func (p *player) get(path string) (*http.Response, error) {
	r, err := http.NewRequest("GET", p.base+path, nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("X-User-Id", p.user)
	resp, err := p.Do(r)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s of %s is answered %d", path, p.user, resp.StatusCode)
	}
	return resp, err
}

// segment asks for one, as a player does, again where its connection is closed just now.
func (p *player) segment(n int) error {
	var err error
	for range 3 {
		var resp *http.Response
		if resp, err = p.get(fmt.Sprintf("/vod/%s/%d.ts", p.user, n)); err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
		if err == nil || strings.Contains(err.Error(), "is answered") {
			return err
		}
	}
	return err
}

// A thousand viewers, fifty of them of endless answers, while the config is loaded anew
// with other options of the store, and when the node stops: nobody is closed or cut by a
// reload, and nobody loses his guard by a stop.
func TestAThousandViewersOverReloads(t *testing.T) {
	t.Parallel()
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "video/mp2t")
		if !strings.HasPrefix(r.URL.Path, "/live/") {
			w.Write(make([]byte, 1000))
			return
		}
		for tick := time.NewTicker(200 * time.Millisecond); ; <-tick.C {
			if _, err := w.Write(make([]byte, 188)); err != nil || http.NewResponseController(w).Flush() != nil {
				tick.Stop()
				return
			}
		}
	}))
	t.Cleanup(func() {
		origin.CloseClientConnections()
		origin.Close()
	})
	redis := redistest.Start(t)
	grace := "1h" // how long endless answers go on after a reload
	config := func(timeout string) string {
		store := strings.Replace(inRedis(redis), "timeout 10s", "timeout "+timeout, 1)
		return "{\n\tgrace_period " + grace + "\n}\n" + site("metrics /metrics\n\treverse_proxy "+strings.TrimPrefix(origin.URL, "http://"), store, "playback auto", "limit 1")
	}
	n := start(t, config("10s"))
	const viewers, endless = 950, 50
	all := make([]*player, viewers+endless)
	for i := range all {
		all[i] = n.player(t, fmt.Sprint("v", i))
	}
	each := func(do func(i int, p *player) error) {
		t.Helper()
		var clients sync.WaitGroup
		next := make(chan int)
		for range 20 {
			clients.Go(func() {
				for i := range next {
					if err := do(i, all[i]); err != nil {
						t.Error(err)
					}
				}
			})
		}
		for i := range all {
			next <- i
		}
		close(next)
		clients.Wait()
	}
	each(func(i int, p *player) error {
		if i < viewers {
			if err := p.segment(1); err != nil {
				return err
			}
			return p.segment(2)
		}
		p.Timeout = 0
		resp, err := p.get("/live/" + p.user + ".ts")
		if err != nil {
			return err
		}
		go func() {
			for some := make([]byte, 1<<10); err == nil; {
				var n int
				n, err = resp.Body.Read(some)
				p.received.Add(int64(n))
			}
			p.received.Store(-1 << 40) // it was cut
		}()
		return nil
	})
	goesOn := func(n int) {
		t.Helper()
		var before [endless]int64
		for i := range before {
			before[i] = all[viewers+i].received.Load()
		}
		each(func(i int, p *player) error {
			if i < viewers {
				return p.segment(n)
			}
			return nil
		})
		for i := range before {
			eventually(t, "an endless answer goes on", func() bool {
				now := all[viewers+i].received.Load()
				if now < 0 {
					t.Fatalf("the endless answer of %s was cut", all[viewers+i].user)
				}
				return now > before[i]
			})
		}
	}
	for round, timeout := range []string{"9s", "8s", "7s"} {
		n.reloadWell(t, config(timeout))
		goesOn(3 + round)
	}
	// When another one is closed who leaves after all that, so would be they.
	last := n.player(t, "last")
	for i := range 2 {
		if err := last.segment(i); err != nil {
			t.Fatal(err)
		}
	}
	last.CloseIdleConnections()
	closed := func() float64 {
		series := n.scrape(t)
		return series[`caddy_stream_guard_closed_total{when="waited"}`] + series[`caddy_stream_guard_closed_total{when="hurried"}`]
	}
	eventually(t, "who has left is closed", func() bool { return closed() > 0 })
	goesOn(6)
	if got := closed(); got != 1 {
		t.Errorf("the guards of %v were closed, want only that of who has left", got)
	}
	// A stop says nothing of those who watch.
	grace = "1s"
	n.reloadWell(t, config("10s"))
	other := start(t, config("10s"))
	n.stop()
	for i := 0; i < len(all); i += 25 {
		held := other.guards(t, all[i].user)
		if len(held.Guards) != 1 || held.Guards[0].State != "active" {
			t.Errorf("after the stop %s holds %+v, want an active guard", all[i].user, held.Guards)
		}
	}
}
