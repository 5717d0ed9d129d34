package caddymodule

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"path"
	"testing"
	"time"

	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/problem"
)

const onTV = "X-Device"

func devices() Handler { return Handler{Device: "{http.request.header.X-Device}"} }

// open plays a manifest as a player of path tokens does, and returns the folder
// of its segments.
func (g *site) open(manifest string, fields ...string) string {
	g.t.Helper()
	w := g.get(302, manifest, fields...)
	token, file := path.Split(w.Header().Get("Location"))
	dir := path.Dir(manifest) + "/" + token
	g.get(200, dir+file, fields...)
	return dir
}

// A television whose channel is changed every two seconds, with a limit of one.
func TestZapping(t *testing.T) {
	for _, way := range []string{"auto", "stream"} {
		t.Run(way, func(t *testing.T) {
			h := devices()
			h.Playback, h.Limits = way, []Limit{{Limit: "1"}, {Limit: "1", Per: "device", Replace: "oldest"}}
			withGate(t, h, func(g *site) {
				for i := range 30 {
					manifest := fmt.Sprintf("/live/channel%d/master.m3u8", i)
					if way == "auto" {
						dir := g.open(manifest, onTV, "tv")
						g.get(200, dir+"1.m4s", onTV, "tv")
					} else {
						session := fmt.Sprintf(`sid="%d"`, i)
						g.get(200, manifest, onTV, "tv", sid, session)
						g.get(200, fmt.Sprintf("/live/channel%d/1.m4s", i), onTV, "tv", sid, session)
					}
					if held := g.holds(1); held[0].Stream != fmt.Sprintf("live/channel%d", i) {
						t.Fatalf("after change %d the guard is on %s", i, held[0].Stream)
					}
					g.get(429, "/live/channel0/master.m3u8", onTV, "phone", sid, `sid="phone"`, "User-Agent", "phone")
					time.Sleep(2 * time.Second)
				}
			})
		})
	}
}

func problemOf(t *testing.T, w *httptest.ResponseRecorder) (p problem.Problem) {
	t.Helper()
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
		t.Fatalf("%v: %s", err, w.Body)
	}
	return p
}

func TestReplacedPlaybackIsToldAndHasToStartAnew(t *testing.T) {
	withGate(t, Handler{Limits: []Limit{{Limit: "1", Replace: "oldest"}}}, func(g *site) {
		g.get(200, "/vod/a/master.m3u8", sid, `sid="1"`)
		g.get(200, "/vod/a/1.m4s", sid, `sid="1"`)
		g.get(200, "/vod/b/master.m3u8", sid, `sid="2"`)
		g.get(200, "/vod/a/2.m4s", sid, `sid="1"`) // the manifest has only looked
		g.get(200, "/vod/b/1.m4s", sid, `sid="2"`)
		token := "~" + guard.DeriveID("u", "", "1").String()
		for _, url := range []string{"/vod/a/3.m4s", "/vod/a/" + token + "/3.m4s", "/vod/a/" + token + "/video.m3u8"} {
			if p := problemOf(t, g.get(429, url, sid, `sid="1"`)); p.ErrorCode != problem.GuardReplaced {
				t.Errorf("the one replaced is told %+v", p)
			}
		}
		if held := g.holds(1); held[0].Stream != "vod/b" {
			t.Errorf("the user holds %+v", held)
		}
		// A new load starts, and so does a segment of a player whose manifest came
		// from elsewhere.
		for i, url := range []string{"/vod/a/master.m3u8", "/vod/a/4.m4s", "/vod/c/1.m4s"} {
			g.get(200, url, sid, []string{`sid="1"`, `sid="1"`, `sid="3"`}[i])
		}
		g.get(429, "/vod/a/5.m4s", sid, `sid="1"`)
		g.get(429, "/vod/b/2.m4s", sid, `sid="2"`)
		if held := g.holds(1); held[0].Stream != "vod/c" {
			t.Errorf("the user holds %+v", held)
		}
	})
}

func TestRulesPerLabel(t *testing.T) {
	h := Handler{
		Limits: []Limit{{Limit: "3"}, {Limit: "1", Per: "class"}, {Limit: "2", Per: "stream"}},
		Labels: map[string]string{"class": "{http.request.header.X-Class}"},
	}
	withGate(t, h, func(g *site) {
		const class = "X-Class"
		g.get(200, "/vod/a/1.m4s", sid, `sid="1"`, class, "tv")
		p := problemOf(t, g.get(429, "/vod/b/master.m3u8", sid, `sid="2"`, class, "tv"))
		if p.Per != "class" || *p.Limit != 1 || len(p.Guards) != 1 || p.Guards[0].StreamID != "vod/a" {
			t.Errorf("refused with %+v", p)
		}
		g.get(200, "/vod/a/1.m4s", sid, `sid="3"`, class, "phone")
		// Without the label its rule does not count it; the others do.
		p = problemOf(t, g.get(429, "/vod/a/master.m3u8", sid, `sid="4"`, "User-Agent", "another"))
		if p.Per != "stream" || *p.Limit != 2 {
			t.Errorf("refused with %+v", p)
		}
		g.get(200, "/vod/b/1.m4s", sid, `sid="4"`)
		p = problemOf(t, g.get(429, "/vod/c/master.m3u8", sid, `sid="5"`, class, "fridge"))
		if p.Per != "" || *p.Limit != 3 || len(p.Guards) != 3 {
			t.Errorf("refused with %+v", p)
		}
		if got := g.holds(3)[0].Labels.Get("class"); got != "tv" {
			t.Errorf("the guard's class is %q", got)
		}
	})
}
