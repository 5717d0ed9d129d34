package caddymodule

import (
	"fmt"
	"testing"

	dto "github.com/prometheus/client_model/go"
)

// Many titles of which the option stream makes one are told of, and counted.
func TestStreamsThatAreSeveralTitlesAreToldOf(t *testing.T) {
	for _, c := range []struct {
		name   string
		h      Handler
		path   func(n int) string
		fields []string
		stream string
		n      int // after so many manifests it is told; 0 for never
	}{
		{name: "deeper than dir 2", h: Handler{Playback: "auto"}, path: func(n int) string { return fmt.Sprintf("/emby/Videos/%d/master.m3u8", n) }, stream: "emby/Videos", n: 8},
		{name: "with logins in front", h: Handler{Playback: "auto"}, path: func(n int) string { return fmt.Sprintf("/live/user/pass/%d.m3u8", n) }, stream: "live/user", n: 8},
		{name: "numbers in a flat folder", h: Handler{Playback: "auto"}, path: func(n int) string { return fmt.Sprintf("/tv/%d.m3u8", n) }, stream: "tv", n: 8},
		{name: "without tokens", h: Handler{Playback: "stream"}, path: func(n int) string { return fmt.Sprintf("/live/user/pass/%d.m3u8", n) }, stream: "live/user", n: 24},
		{name: "playbacks that say who they are", h: Handler{Playback: "auto"}, path: func(n int) string { return fmt.Sprintf("/emby/Videos/%d/master.m3u8", n) }, fields: []string{"X-Playback-Session-Id", "s"}},
		{name: "titles apart", h: Handler{Playback: "auto"}, path: func(n int) string { return fmt.Sprintf("/vod/%d/master.m3u8", n) }},
		{name: "names apart", h: Handler{Playback: "auto"}, path: func(n int) string { return fmt.Sprintf("/hls/ch%d.m3u8", n) }},
		{name: "media", h: Handler{Playback: "auto"}, path: func(n int) string { return fmt.Sprintf("/vod/x/%d/1.ts", n) }},
		{name: "one manifest by many queries", h: Handler{Playback: "auto"}, path: func(n int) string { return fmt.Sprintf("/vod/x/y/m.m3u8?a=%d", n) }},
		{name: "a title with renditions and languages", h: Handler{Playback: "stream"}, path: func(n int) string { return fmt.Sprintf("/vod/alien/%d/index.m3u8", n%23) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			withGate(t, c.h, func(g *site) {
				before := crowdedStreamsTotal(t)
				said := func() int { return g.logs.FilterMessageSnippet("many different manifests are of one stream").Len() }
				for n := range 50 {
					g.do(ask("GET", c.path(n), c.fields...))
					if want := n+1 >= c.n && c.n > 0; (said() == 1) != want {
						t.Fatalf("after %d manifests: told %d times", n+1, said())
					}
				}
				counted := crowdedStreamsTotal(t) - before
				if c.n == 0 {
					if counted != 0 {
						t.Errorf("%v streams are counted", counted)
					}
					return
				}
				entry := g.logs.FilterMessageSnippet("many different manifests are of one stream").All()[0].ContextMap()
				paths := fmt.Sprint(entry["paths"])
				if entry["stream"] != c.stream || paths != fmt.Sprint([]string{c.path(0), c.path(c.n - 1)}) || entry["option"] != "stream dir 2" || counted != 1 {
					t.Errorf("%v, counted %v", entry, counted)
				}
			})
		})
	}
}

func crowdedStreamsTotal(t *testing.T) float64 {
	t.Helper()
	var m dto.Metric
	if err := crowdedStreams.Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetCounter().GetValue()
}

// Channels of nginx-rtmp and SRS lie in one folder, and are two all the same.
func TestChannelsOfOneFolderAreTwoPlaybacks(t *testing.T) {
	for _, c := range [][]string{
		{"/hls/ch1.m3u8", "/hls/ch1-1.ts", "/hls/ch2.m3u8", "/hls/ch2-1.ts", "/hls/ch1-2.ts"},
		{"/hls/channel_1.m3u8", "/hls/channel_1_00007.ts", "/hls/channel_2.m3u8", "/hls/channel_2-7.ts", "/hls/channel_1-8.ts"},
		{"/tv/show-1x01.m3u8", "/tv/show-1x01-7.ts", "/tv/show-1x02.m3u8", "/tv/show-1x02-7.ts", "/tv/show-1x01_720p_00007.m4s"},
	} {
		for _, stream := range []string{"", "name"} {
			withGate(t, Handler{Stream: stream, Limits: []Limit{{Limit: "1"}}}, func(g *site) {
				g.get(200, c[0])
				g.get(200, c[1])
				g.get(429, c[2])
				g.get(429, c[3])
				g.get(200, c[4])
			})
		}
	}
}

// Who makes up streams makes the gate remember no more than so many.
func TestCrowdsAreBounded(t *testing.T) {
	c := newCrowds(false)
	for n := range maxCrowds + 1000 {
		c.look(fmt.Sprint(n), "/m.m3u8")
	}
	if len(c.of) != maxCrowds {
		t.Errorf("%d streams are remembered", len(c.of))
	}
}
