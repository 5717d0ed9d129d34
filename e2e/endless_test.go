package e2e

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/streamguard/streamguard/redisstore/redistest"
)

// channels is an origin of television: every path is one MPEG-TS without an end.
type channels struct {
	*httptest.Server
	mu   sync.Mutex
	sent map[string]int // bytes, by path
}

func newChannels(t *testing.T) *channels {
	t.Helper()
	c := &channels{sent: make(map[string]int)}
	segments, err := filepath.Glob(root + "/testdata/media/ts/180/*.ts")
	if err != nil || len(segments) == 0 {
		t.Fatal("there is no MPEG-TS", err)
	}
	slices.Sort(segments)
	var title []byte
	for _, name := range segments {
		segment, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		title = append(title, segment...)
	}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "video/mp2t")
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for at := 0; ; <-tick.C {
			n, err := w.Write(title[at:min(at+50*188, len(title))])
			if err != nil || http.NewResponseController(w).Flush() != nil {
				return
			}
			at = (at + n) % len(title)
			c.mu.Lock()
			c.sent[r.URL.Path] += n
			c.mu.Unlock()
		}
	}))
	t.Cleanup(func() {
		c.CloseClientConnections()
		c.Close()
	})
	return c
}

// sendsOn waits until more of a channel is sent, by some seconds of it.
func (c *channels) sendsOn(t *testing.T, path string) {
	t.Helper()
	sent := func() int {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.sent[path]
	}
	before := sent()
	eventually(t, "more of "+path+" is sent", func() bool { return sent() > before+1<<20 })
}

func (c *channels) site(store string) string {
	return site("reverse_proxy "+strings.TrimPrefix(c.URL, "http://"), store, "playback auto", "limit 1", "interval 3s", "ttl 90s")
}

// tune has ffmpeg watch a channel, and returns when that has a guard of its own: it is
// known to be one by its path.
func (n *node) tune(t *testing.T, user, path string) *viewer {
	t.Helper()
	return n.tunes(t, user, n.ffmpeg(context.Background(), t, user, path, box))
}

// box are options of ffmpeg: how it calls itself, and that it is silent.
var box = []string{"-v", "quiet", "-user_agent", "box"}

// tunes is tune with a command.
func (n *node) tunes(t *testing.T, user string, cmd *exec.Cmd) *viewer {
	t.Helper()
	v := n.watching(t, user, cmd)
	first := v.guard
	eventually(t, "its answer is known to be endless", func() bool {
		v.playing(t)
		held, _ := n.listed(t, user)
		for _, g := range held.Guards {
			v.guard = g.GuardID
		}
		return v.guard != first
	})
	return v
}

// closes waits until a guard is closed, and has another start take its slot.
func (n *node) closes(t *testing.T, user string, v *viewer) {
	t.Helper()
	eventually(t, "the guard is closed", func() bool {
		held, _ := n.listed(t, user)
		g, there := held.find(v.guard)
		if !there {
			t.Fatalf("the guard of %s is gone", user)
		}
		return g.State == "closed"
	})
	n.want(t, 201, user, "POST", "/guards", `{"streamId":"next"}`)
}

// A channel as one endless answer, watched by ffmpeg.
func TestEndlessChannel(t *testing.T) {
	t.Parallel()
	c := newChannels(t)
	n := start(t, timeouts+c.site(inRedis(redistest.Start(t))))
	for name, test := range map[string]func(t *testing.T, user, folder string){
		"its player is killed": func(t *testing.T, user, folder string) {
			v := n.tune(t, user, folder+"1.ts")
			v.kill()
			n.closes(t, user, v)
		},
		"its receiver vanishes": func(t *testing.T, user, folder string) {
			cmd := n.ffmpeg(context.Background(), t, user, folder+"1.ts", box)
			v := n.tunes(t, user, cmd)
			c.sendsOn(t, folder+"1.ts")
			cmd.Process.Signal(syscall.SIGSTOP) // it reads no more, and its connection stays
			n.closes(t, user, v)
		},
		"it is revoked": func(t *testing.T, user, folder string) {
			v := n.tune(t, user, folder+"1.ts")
			n.operateWell(t, "revoke", user, v.guard)
			<-v.exited
			if a := n.ask(t, user, "GET", folder+"1.ts", "", "User-Agent", "box"); a.status != 429 || !strings.Contains(a.body, "GUARD_REVOKED") {
				t.Errorf("the next request is answered %d %s", a.status, a.body)
			}
		},
		"another is chosen": func(t *testing.T, user, folder string) {
			for channel := range 3 {
				v := n.watch(t, user, fmt.Sprint(folder, channel, ".ts"), box)
				c.sendsOn(t, fmt.Sprint(folder, channel, ".ts"))
				v.playing(t)
				v.kill()
			}
		},
		"a second box in the first second": func(t *testing.T, user, folder string) {
			v := n.watch(t, user, folder+"1.ts", box)
			out, err := n.ffmpeg(t.Context(), t, user, folder+"2.ts", []string{"-user_agent", "box"}).CombinedOutput()
			if err == nil || !strings.Contains(string(out), "429") {
				t.Errorf("the second one ends with %v, want 429: %s", err, out)
			}
			c.sendsOn(t, folder+"1.ts")
			v.playing(t)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			user := strings.ReplaceAll(name, " ", "-")
			test(t, user, "/tv/"+user+"/")
		})
	}
}

// The channel goes on over a reload that changes the store's options, and ends as any.
func TestEndlessChannelOverAReload(t *testing.T) {
	t.Parallel()
	c := newChannels(t)
	config := c.site(inRedis(redistest.Start(t)))
	n := start(t, config)
	v := n.tune(t, "alice", "/tv/alice/1.ts")
	n.reloadWell(t, strings.Replace(config, "timeout 10s", "timeout 9s", 1))
	n.goOn(t, "alice", v)
	c.sendsOn(t, "/tv/alice/1.ts")
	v.kill()
	n.closes(t, "alice", v)
}

func TestEndlessChannelWhileRedisIsAway(t *testing.T) {
	t.Parallel()
	c, redis := newChannels(t), redistest.Start(t)
	n := start(t, c.site(away(redis.Addr)))
	v := n.tune(t, "alice", "/tv/alice/1.ts")
	redis.Pause()
	eventually(t, "the gate knows it", func() bool { return strings.Contains(n.log.String(), "the store cannot answer") })
	c.sendsOn(t, "/tv/alice/1.ts")
	v.playing(t)
	redis.Resume()
	n.goOn(t, "alice", v)
}
