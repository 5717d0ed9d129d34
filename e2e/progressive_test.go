package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/streamguard/streamguard/redisstore/redistest"
)

// Players other than ffmpeg on a channel without an end.
func TestEndlessChannelOnOtherPlayers(t *testing.T) {
	t.Parallel()
	s, c := newStage(t), newChannels(t)
	config := s.site(inRedis(redistest.Start(t)), "playback auto", "limit 1", "interval 3s", "ttl 90s")
	n := start(t, strings.Replace(config, "reverse_proxy "+s.url, "reverse_proxy "+c.URL, 1))
	for i, player := range []string{"mpv", "vlc", "gst"} {
		t.Run(player, func(t *testing.T) {
			t.Parallel()
			user := fmt.Sprintf("127.0.5.%d", 1+i)
			v := n.watching(t, user, n.commandLine(context.Background(), t, player, user, channelOf(user, 1)))
			n.lasts(t, user, v)
			n.want(t, 429, user, "POST", "/guards", `{"streamId":"next"}`, "User-Agent", "another")
			n.goOn(t, user, v)
			n.holds(t, user, 1)
			v.kill()
			n.closes(t, user, v)
		})
	}
}

// newFilm makes a progressive file of the sample media, and a handler that takes its time
// to send it.
func newFilm(t *testing.T) http.HandlerFunc {
	t.Helper()
	name := filepath.Join(t.TempDir(), "film.mp4")
	made := exec.Command("ffmpeg", "-v", "error", "-i", root+"/testdata/media/cmaf/master.m3u8", "-c", "copy", "-movflags", "+faststart", name)
	if out, err := made.CombinedOutput(); err != nil {
		t.Fatalf("ffmpeg makes no film (make setup): %v\n%s", err, out)
	}
	return func(w http.ResponseWriter, r *http.Request) { http.ServeFile(slow{w}, r, name) }
}

// slow writes some 25 kB a second, several times what the film has.
type slow struct{ http.ResponseWriter }

func (s slow) Write(b []byte) (written int, err error) {
	for len(b) > 0 && err == nil {
		var n int
		n, err = s.ResponseWriter.Write(b[:min(len(b), 1000)])
		http.NewResponseController(s.ResponseWriter).Flush()
		written += n
		b = b[n:]
		time.Sleep(40 * time.Millisecond)
	}
	return written, err
}

// A film as one file is one playback, whatever parts of it a player asks for.
func TestProgressiveFilm(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.mux.HandleFunc("/film/", newFilm(t))
	n := start(t, s.site(inRedis(redistest.Start(t)), "playback auto", "limit 1", "interval 3s", "ttl 90s"))
	for i, player := range []string{"mpv", "vlc"} {
		t.Run(player, func(t *testing.T) {
			t.Parallel()
			user := fmt.Sprintf("127.0.6.%d", 1+i)
			v := n.watching(t, user, n.commandLine(context.Background(), t, player, user, "/film/"+user+".mp4"))
			n.goOn(t, user, v)
			n.want(t, 429, user, "POST", "/guards", `{"streamId":"next"}`, "User-Agent", "another")
			n.holds(t, user, 1)
			v.kill()
		})
	}
	t.Run("Chromium", func(t *testing.T) {
		t.Parallel()
		const user = "progressive"
		p := openTab(t, "http://"+n.addr+"/player/record.html?player=native", user)
		p.run(t, "play", "/film/"+user+".mp4")
		p.plays(t)
		for _, at := range []float64{40, 10, 50} {
			p.run(t, "seek", at)
			p.plays(t)
		}
		n.want(t, 429, user, "POST", "/guards", `{"streamId":"next"}`, "User-Agent", "another")
		n.holds(t, user, 1)
	})
}
