package caddymodule

import (
	"strings"
	"testing"
	"time"
)

// overlooked are the paths of manifests that the log says are not counted.
func (g *site) overlookedManifests() (paths []string) {
	for _, entry := range g.logs.FilterMessageSnippet("a manifest is not counted").All() {
		paths = append(paths, entry.ContextMap()["path"].(string)+" "+entry.ContextMap()["add"].(string))
	}
	return paths
}

func TestManifestsThatAreNotCountedAreToldOf(t *testing.T) {
	other := []Kinds{{"other", []string{"/ads/*", ".php"}}}
	for _, c := range []struct {
		name, path, contentType string
		h                       Handler
		wait                    time.Duration
		told                    bool
	}{
		{name: "HLS", path: "/live/7/playlist", contentType: "application/vnd.apple.mpegurl", told: true},
		{name: "HLS of before", path: "/list.php", contentType: "Audio/X-MpegURL; charset=utf-8", told: true},
		{name: "DASH", path: "/live/7/dash", contentType: "application/dash+xml", told: true},
		{name: "Smooth Streaming", path: "/live/7/Manifest", contentType: "application/vnd.ms-sstr+xml", told: true},
		{name: "a picture", path: "/live/7/poster", contentType: "image/jpeg"},
		{name: "nothing", path: "/live/7/nothing"},
		{name: "what is not to be counted", path: "/ads/7/playlist", contentType: "application/vnd.apple.mpegurl", h: Handler{Kinds: other}},
		{name: "an extension that is not", path: "/list.php", contentType: "application/vnd.apple.mpegurl", h: Handler{Kinds: other}},
		{name: "within ten minutes", path: "/live/7/playlist", contentType: "application/vnd.apple.mpegurl", wait: 10*time.Minute - time.Second, told: true},
		{name: "later", path: "/live/7/playlist", contentType: "application/vnd.apple.mpegurl", wait: 10*time.Minute + time.Second},
		{name: "later, where it is only observed", path: "/live/7/playlist", contentType: "application/vnd.apple.mpegurl", h: Handler{Mode: "observe"}, wait: time.Hour, told: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			withGate(t, c.h, func(g *site) {
				time.Sleep(c.wait)
				if c.contentType != "" {
					g.header.Set("Content-Type", c.contentType)
				}
				for range 3 {
					g.get(200, c.path)
				}
				want := 0
				if c.told {
					want = 1
				}
				told := g.overlookedManifests()
				if len(told) != want || c.told && !strings.HasPrefix(told[0], c.path+" kind manifest "+c.path) {
					t.Errorf("told of %q", told)
				}
				if over := g.Handler.overlooked.over.Load(); over != (c.told || c.name == "later") {
					t.Errorf("it has done looking: %v", over)
				}
			})
		})
	}
}

// The line that the warning says to add is one that counts.
func TestWhatIsToldOfIsCountedWithTheLineAdded(t *testing.T) {
	withGate(t, Handler{Kinds: []Kinds{{"manifest", []string{"/live/*/playlist"}}, {"media", []string{"/live/*/seg"}}}, Limits: []Limit{{Limit: "0"}}}, func(g *site) {
		g.header.Set("Content-Type", "application/vnd.apple.mpegurl")
		g.get(429, "/live/7/playlist")
		g.get(429, "/live/7/seg")
		if told := g.overlookedManifests(); len(told) > 0 {
			t.Errorf("told of %q", told)
		}
	})
}

// What servers call manifests and media is counted with nothing configured.
func TestNamesOfServersAreCounted(t *testing.T) {
	withGate(t, Handler{Limits: []Limit{{Limit: "0"}}}, func(g *site) {
		g.get(429, "/v/x/list.m3u")
		g.origin = 0 // which was asked whether that is a list of titles
		for _, path := range []string{
			"/v/x/list.m3u", "/v/a.ism/Manifest", "/v/a.ism/manifest(format=m3u8-aapl)", "/v/a.ism/manifest(format=mpd-time-csf)",
			"/v/a.ism/QualityLevels(1)/Fragments(video=0)", "/v/a.ism/QualityLevels(1)/Fragments(audio=0)",
			"/Videos/1/stream.mkv", "/Videos/1/stream", "/Audio/1/universal", "/live/u/p/1.ts", "/live/x.flv", "/a/1.flac", "/a/1.m2ts", "/a/1.avi", "/a/1.ogg", "/a/1.opus",
		} {
			g.get(429, path)
		}
		if g.origin != 0 {
			t.Errorf("%d requests reached the origin", g.origin)
		}
	})
}
