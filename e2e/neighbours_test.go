package e2e

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	guards "github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/redisstore/redistest"
)

var hostileFor = flag.Duration("hostile.for", time.Second, "how long each kind of hostile user is at work beside honest ones")

// A hundred honest viewers, each with a segment twice a second, beside users
// who make the gate and Redis work as hard as they can: none is refused, and
// none is answered by an error.
func TestHonestViewersBesideHostileOnes(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 250)
	for name, hostile := range map[string]func(c *caller, worker int){
		"nobody": func(c *caller, _ int) { <-c.ctx.Done() },
		"who gives the slot back all the time": func(c *caller, worker int) {
			sid := fmt.Sprintf(`sid="%d"`, worker)
			c.ask("GET", fmt.Sprintf("/media/cmaf/s0/%03d.m4s", worker%10+1), "", "CMCD-Session", sid)
			c.ask("POST", "/guards/cmcd", fmt.Sprintf(`e=ps,sid="%d",sta=e,ts=1`, worker), "Content-Type", "application/cmcd")
		},
		"who holds a thousand guards of long names": func(c *caller, worker int) {
			c.ask("POST", "/guards", fmt.Sprintf(`{"playbackId":"%d","streamId":"%s%d"}`, worker, long, worker), "X-Plan", "1000")
			for n := range 20 {
				c.ask("POST", "/guards", fmt.Sprintf(`{"playbackId":"%d-%d","streamId":"%s%d"}`, worker, n, long, n), "X-Plan", "1000")
			}
			c.ask("GET", target, "", "X-Plan", "1000", "CMCD-Session", fmt.Sprintf(`sid="%d"`, worker))
		},
		"who has all of them replaced at once": func(c *caller, worker int) {
			for n := range 20 {
				c.ask("POST", "/guards", fmt.Sprintf(`{"streamId":"%d"}`, n), "X-Plan", "1000")
			}
			c.ask("POST", "/guards", `{"onLimit":"replace_oldest"}`, "X-Plan", "1")
		},
		"who repeats tokens": func(c *caller, worker int) {
			token := "/~" + guards.NewID("mallory", "").String()
			c.ask("GET", "/media/cmaf"+strings.Repeat(token, 100)+"/master.m3u8", "", "X-Plan", "1000")
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := start(t, site(files, inRedis(redistest.Start(t)), "limit {header.X-Plan} or 1", "interval 3s", "ttl 60s"))
			ctx, stop := context.WithTimeout(t.Context(), *hostileFor)
			defer stop()
			var all sync.WaitGroup
			for worker := range 50 {
				all.Go(func() {
					c := &caller{ctx: ctx, n: n, user: "mallory"}
					for ctx.Err() == nil {
						hostile(c, worker)
					}
				})
			}
			var mu sync.Mutex
			var took []time.Duration
			for viewer := range 100 {
				all.Go(func() {
					c := &caller{ctx: ctx, n: n, user: fmt.Sprint("viewer ", viewer)}
					tick := time.NewTicker(500 * time.Millisecond)
					defer tick.Stop()
					for part := 0; ; part++ {
						begin := time.Now()
						status := c.ask("GET", fmt.Sprintf("/media/cmaf/s0/%03d.m4s", part%10+1), "", "CMCD-Session", `sid="a"`)
						if status != http.StatusOK && ctx.Err() == nil {
							t.Errorf("an honest viewer was answered %d", status)
						}
						mu.Lock()
						took = append(took, time.Since(begin))
						mu.Unlock()
						select {
						case <-ctx.Done():
							return
						case <-tick.C:
						}
					}
				})
			}
			all.Wait()
			slices.Sort(took)
			t.Logf("%d segments, the 99th of a hundred in %v", len(took), took[len(took)*99/100])
		})
	}
}

// caller makes requests in the name of one user until its time is over.
type caller struct {
	ctx  context.Context
	n    *node
	user string
}

// ask returns the status of an answer, 0 where there is none.
func (c *caller) ask(method, path, body string, header ...string) int {
	r, err := http.NewRequestWithContext(c.ctx, method, "http://"+c.n.addr+path, bytes.NewReader([]byte(body)))
	if err != nil {
		return 0
	}
	r.Header.Set("X-User-Id", c.user)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := c.n.client.Do(r)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}
