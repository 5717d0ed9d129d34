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
	open map[string]int // answers that are being sent, by path
}

func newChannels(t *testing.T) *channels {
	t.Helper()
	c := &channels{sent: make(map[string]int), open: make(map[string]int)}
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
		c.opens(r.URL.Path, 1)
		defer c.opens(r.URL.Path, -1)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for at := 0; ; <-tick.C {
			n, err := w.Write(title[at:min(at+200*188, len(title))])
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

func (c *channels) opens(path string, more int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open[path] += more
}

// ends waits until no answer of a channel is being sent.
func (c *channels) ends(t *testing.T, path string) {
	t.Helper()
	eventually(t, "the answer of "+path+" has ended", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.open[path] == 0
	})
}

// stalls waits until nothing more of a channel is sent, though it is open: what is
// between it and its receiver is full.
func (c *channels) stalls(t *testing.T, path string) {
	t.Helper()
	sent, times := 0, 0
	eventually(t, path+" is not taken any more", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.sent[path] != sent {
			sent, times = c.sent[path], 0
		}
		times++
		return times > 25 && c.open[path] == 1
	})
}

// sendsOn waits until more of some channels is sent, by some seconds of each.
func (c *channels) sendsOn(t *testing.T, paths ...string) {
	t.Helper()
	sent := func(path string) int {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.sent[path]
	}
	before := make(map[string]int)
	for _, path := range paths {
		before[path] = sent(path)
	}
	for _, path := range paths {
		eventually(t, "more of "+path+" is sent", func() bool { return sent(path) > before[path]+4<<20 })
	}
}

func (c *channels) site(store string) string {
	return site("reverse_proxy "+strings.TrimPrefix(c.URL, "http://"), store, "playback auto", "limit 1", "interval 3s", "ttl 90s")
}

// box are options of ffmpeg: how it calls itself, and that it is silent.
var box = []string{"-v", "quiet", "-user_agent", "box"}

// tune has ffmpeg watch a channel of the user's own folder.
func (n *node) tune(t *testing.T, user string, channel int) (*viewer, *exec.Cmd) {
	t.Helper()
	cmd := n.ffmpeg(context.Background(), t, user, channelOf(user, channel), box)
	return n.watching(t, user, cmd), cmd
}

func channelOf(user string, channel int) string { return fmt.Sprintf("/tv/%s/%d.ts", user, channel) }

// lasts waits until a viewer's guard has the name of its path: its answer is known to
// be endless.
func (n *node) lasts(t *testing.T, user string, v *viewer) {
	t.Helper()
	first := v.guard
	eventually(t, "the answer of "+user+" is known to be endless", func() bool {
		v.playing(t)
		held, _ := n.listed(t, user)
		for _, g := range held.Guards {
			v.guard = g.GuardID
		}
		return v.guard != first
	})
}

// closes waits until a guard is closed, and has another start take its slot.
func (n *node) closes(t *testing.T, user string, v *viewer) {
	t.Helper()
	eventually(t, "the guard of "+user+" is closed", func() bool {
		held, _ := n.listed(t, user)
		g, there := held.find(v.guard)
		if !there {
			t.Fatalf("the guard of %s is gone", user)
		}
		return g.State == "closed"
	})
	n.want(t, 201, user, "POST", "/guards", `{"streamId":"next"}`, "User-Agent", "another")
}

// Channels as endless answers, watched by ffmpeg at limit 1: each user's does something
// else. All at once, since it takes its time until a playback is over.
func TestEndlessChannels(t *testing.T) {
	t.Parallel()
	c := newChannels(t)
	n := start(t, timeouts+c.site(inRedis(redistest.Start(t))))

	// A second box on another channel within the first second is refused.
	two, _ := n.tune(t, "two", 1)
	out, err := n.ffmpeg(t.Context(), t, "two", channelOf("two", 2), []string{"-user_agent", "box"}).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "429") {
		t.Errorf("the second box ends with %v, want 429: %s", err, out)
	}
	killed, _ := n.tune(t, "killed", 1)
	vanishes, cmd := n.tune(t, "vanishes", 1)
	revoked, _ := n.tune(t, "revoked", 1)
	n.lasts(t, "killed", killed)
	n.lasts(t, "vanishes", vanishes)
	n.lasts(t, "revoked", revoked)

	killed.kill()
	cmd.Process.Signal(syscall.SIGSTOP) // it reads no more, and its connection stays
	n.operateWell(t, "revoke", "revoked", revoked.guard)
	<-revoked.exited
	if a := n.ask(t, "revoked", "GET", channelOf("revoked", 1), "", "User-Agent", "box"); a.status != 429 || !strings.Contains(a.body, "GUARD_REVOKED") {
		t.Errorf("the next request of who was revoked is answered %d %s", a.status, a.body)
	}

	// A box changes channels, and is never refused.
	for channel := range 3 {
		zaps, _ := n.tune(t, "zaps", channel)
		c.sendsOn(t, channelOf("zaps", channel))
		zaps.kill()
	}
	n.closes(t, "killed", killed)
	n.closes(t, "vanishes", vanishes)
	c.sendsOn(t, channelOf("two", 1))
	two.playing(t)
}

// A channel goes on while Redis is away, and over a reload that changes the store's
// options; then it ends as any.
func TestEndlessChannelGoesOn(t *testing.T) {
	t.Parallel()
	c, redis := newChannels(t), redistest.Start(t)
	config := c.site(away(redis.Addr))
	n := start(t, config)
	v, _ := n.tune(t, "alice", 1)
	n.lasts(t, "alice", v)
	redis.Pause()
	eventually(t, "the gate knows it", func() bool { return strings.Contains(n.log.String(), "the store cannot answer") })
	c.sendsOn(t, channelOf("alice", 1))
	redis.Resume()
	n.goOn(t, "alice", v)
	n.reloadWell(t, strings.Replace(config, "timeout 2s", "timeout 3s", 1))
	n.goOn(t, "alice", v)
	c.sendsOn(t, channelOf("alice", 1))
	v.kill()
	n.closes(t, "alice", v)
}
