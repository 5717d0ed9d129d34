package e2e

import (
	"bytes"
	"context"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// ffmpeg returns a command that plays something of the node's and throws the
// picture away. It opens all tracks and goes on with one of each kind, or as the
// options for its output say.
func (n *node) ffmpeg(ctx context.Context, t *testing.T, user, path string, input []string, output ...string) *exec.Cmd {
	t.Helper()
	binary, err := exec.LookPath("ffmpeg")
	if err != nil {
		t.Fatalf("ffmpeg is needed (Debian: apt-get install ffmpeg): %v", err)
	}
	args := slices.Concat([]string{"-v", "warning", "-nostdin"}, input)
	if user != "" {
		args = append(args, "-headers", "X-User-Id: "+user+"\r\n")
	}
	args = append(args, "-i", "http://"+n.addr+path)
	args = append(args, output...)
	return exec.CommandContext(ctx, binary, append(args, "-c", "copy", "-f", "null", "-")...)
}

// play plays all tracks to the end. Its error says that the player met one.
func (n *node) play(t *testing.T, user, path string) (output string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := n.ffmpeg(ctx, t, user, path, nil, "-map", "0").CombinedOutput()
	if ctx.Err() != nil {
		t.Fatalf("ffmpeg does not come to the end of %s\n%s", path, out)
	}
	return string(out), err
}

// playRefused insists that a player is refused.
func (n *node) playRefused(t *testing.T, user, path string) {
	t.Helper()
	if out, err := n.play(t, user, path); err == nil || !strings.Contains(out, "429") {
		t.Errorf("ffmpeg played %s, or failed for another reason than 429: %v\n%s", path, err, out)
	}
}

// viewer is a player that goes on until it is killed.
type viewer struct {
	guard  string // id of the guard it holds
	kill   func() // as kill -9
	exited chan struct{}
	said   bytes.Buffer // once exited is closed
}

// Options of ffmpeg for viewers.
var (
	// A minute of real time, and so of a segment request every four seconds.
	realTime = []string{"-re"}
	// For ever at eight times the speed: a request every half second. ffmpeg can
	// repeat DASH, HLS it cannot.
	endless = []string{"-readrate", "8", "-stream_loop", "-1"}
)

// An MPD without a BaseURL, which the gate adds: without it ffmpeg resolves URLs
// against the one it was given and not the one it was redirected to.
const mpd = "/media/cmaf/manifest.mpd"

// watch starts a viewer and returns when it holds a guard that the user did not
// hold before.
func (n *node) watch(t *testing.T, user, path string, options []string) *viewer {
	t.Helper()
	return n.watching(t, user, n.ffmpeg(context.Background(), t, user, path, options))
}

// watching is watch with any player.
func (n *node) watching(t *testing.T, user string, cmd *exec.Cmd) *viewer {
	t.Helper()
	var before list
	eventually(t, "the store says what the user holds", func() (ok bool) {
		before, ok = n.listed(t, user)
		return ok
	})
	v := &viewer{exited: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &v.said, &v.said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		cmd.Wait()
		close(v.exited)
	}()
	v.kill = sync.OnceFunc(func() {
		cmd.Process.Kill()
		<-v.exited
	})
	t.Cleanup(v.kill)
	eventually(t, "the viewer holds a guard", func() bool {
		v.playing(t)
		held, _ := n.listed(t, user)
		for _, g := range held.Guards {
			if _, old := before.find(g.GuardID); !old {
				v.guard = g.GuardID
			}
		}
		return v.guard != ""
	})
	return v
}

// playing insists that the viewer still plays.
func (v *viewer) playing(t *testing.T) {
	t.Helper()
	select {
	case <-v.exited:
		t.Fatalf("a viewer has ended: %s", v.said.String())
	default:
	}
}

// goOn returns when each viewer has refreshed its guard from now on.
func (n *node) goOn(t *testing.T, user string, viewers ...*viewer) {
	t.Helper()
	before := n.guards(t, user)
	for _, v := range viewers {
		was, ok := before.find(v.guard)
		if !ok {
			t.Fatalf("a viewer has lost its guard, %s", v.guard)
		}
		eventually(t, "a viewer refreshes its guard", func() bool {
			v.playing(t)
			is, ok := n.guards(t, user).find(v.guard)
			if !ok || !is.CreatedAt.Equal(was.CreatedAt) {
				t.Fatalf("a viewer has lost its guard, %s", v.guard)
			}
			return is.ExpiresAt.After(was.ExpiresAt)
		})
	}
}

// playOn returns when each viewer has asked for more, and so much later at
// least, whatever the store says meanwhile.
func (n *node) playOn(t *testing.T, long time.Duration, viewers ...*viewer) {
	t.Helper()
	asked := func(v *viewer) int { return strings.Count(n.log.String(), v.guard) }
	begun, before := time.Now(), make([]int, len(viewers))
	for i, v := range viewers {
		before[i] = asked(v)
	}
	eventually(t, "the viewers have asked for more", func() bool {
		all := time.Since(begun) >= long
		for i, v := range viewers {
			v.playing(t)
			all = all && asked(v) >= before[i]+6
		}
		return all
	})
}
