package e2e

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/streamguard/streamguard/redisstore/redistest"
)

// Where an interstitial of HLS says what it plays: a playlist at the gate, or a
// list of such, which is there or elsewhere. hls.js resolves what is not absolute
// against the page, and then does not say which film it interrupts.
var interstitials = map[string]string{
	"path":      `X-ASSET-URI="/ads/index.m3u8"`,
	"uri":       `X-ASSET-URI="http://{gate}/ads/index.m3u8"`,
	"list":      `X-ASSET-LIST="/ads/list.json?gate={gate}"`,
	"elsewhere": `X-ASSET-LIST="{stage}/ads/list.json?gate={gate}"`,
}

// interrupted serves the sample's film with an interstitial after its first segment.
func (s *stage) interrupted(w http.ResponseWriter, r *http.Request) {
	by := r.PathValue("by")
	file := root + "/testdata/media/ts" + strings.TrimPrefix(r.URL.Path, "/interrupted/"+by)
	text, err := os.ReadFile(file)
	if err != nil || !strings.HasSuffix(file, ".m3u8") {
		http.ServeFile(w, r, file)
		return
	}
	w.Header().Set("Content-Type", "application/vnd.apple.mpegurl")
	date := "#EXT-X-PROGRAM-DATE-TIME:2026-01-01T00:00:00Z\n" +
		`#EXT-X-DATERANGE:ID="ad",CLASS="com.apple.hls.interstitial",START-DATE="2026-01-01T00:00:04Z",DURATION=4,` +
		strings.NewReplacer("{gate}", r.Host, "{stage}", s.url).Replace(interstitials[by]) + "\n"
	fmt.Fprint(w, strings.Replace(string(text), "#EXTINF", date+"#EXTINF", 1))
}

// ad serves what interrupts films: a segment of the sample's.
func ad(w http.ResponseWriter, r *http.Request) {
	switch name := strings.TrimPrefix(r.URL.Path, "/ads/"); name {
	case "list.json":
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"ASSETS":[{"URI":"http://%s/ads/index.m3u8","DURATION":4}]}`, r.FormValue("gate"))
	case "index.m3u8":
		w.Header().Set("Content-Type", "application/vnd.apple.mpegurl")
		fmt.Fprint(w, "#EXTM3U\n#EXT-X-VERSION:6\n#EXT-X-TARGETDURATION:4\n#EXT-X-PLAYLIST-TYPE:VOD\n#EXTINF:4,\n007.ts\n#EXT-X-ENDLIST\n")
	default:
		http.ServeFile(w, r, root+"/testdata/media/ts/90/"+name)
	}
}

// interruptedPlayback is a playback of hls.js that an ad interrupts, as a user who
// has no other.
type interruptedPlayback struct {
	way, by string
	named   bool
}

func (p interruptedPlayback) user() string {
	return fmt.Sprintf("%s,%s,named=%t", p.way, p.by, p.named)
}

// hls.js plays a film, its ad and the film again under the only guard there is:
// with the name that docs/players.md gives it and, under tokens, without any. A
// list that is elsewhere cannot know of a token.
func TestFilmAndItsAdPlayUnderOneGuard(t *testing.T) {
	t.Parallel()
	s, redis := newStage(t), inRedis(redistest.Start(t))
	nodes := map[string]*node{
		"auto":   start(t, s.site(redis, "playback auto", "limit 1")),
		"stream": start(t, s.site(redis, "playback stream", "limit 1")),
	}
	playbacks := []interruptedPlayback{
		{"auto", "uri", true}, {"auto", "list", true}, {"auto", "elsewhere", true},
		{"auto", "uri", false}, {"auto", "list", false}, {"auto", "path", false},
		{"stream", "uri", true}, {"stream", "list", true}, {"stream", "elsewhere", true},
	}
	t.Run("", func(t *testing.T) {
		for _, test := range playbacks {
			t.Run(test.user(), func(t *testing.T) {
				t.Parallel()
				test.play(t, s, nodes[test.way])
			})
		}
	})
	for _, test := range playbacks {
		nodes[test.way].neverHeldTwo(t, test.user())
	}
}

func (p interruptedPlayback) play(t *testing.T, s *stage, n *node) {
	user, film := p.user(), "interrupted/"+p.by
	args := []any{"/" + film + "/master.m3u8"}
	if p.named {
		args = append(args, "any")
	}
	page := openTab(t, page("http://"+n.addr, "hls"), user)
	page.do(t, "evaluate", "document.querySelector('video').defaultPlaybackRate = 4")
	page.run(t, "play", args...)
	eventually(t, "the film goes on after the ad", func() bool {
		now := page.state(t)
		if len(now.Refusals) > 0 {
			t.Fatalf("the page was refused: %+v", now.Refusals)
		}
		return now.Interruptions > 0
	})
	page.plays(t)
	n.holds(t, user, 1)
	if g := n.guards(t, user).Guards[0]; g.StreamID != film {
		t.Errorf("after the ad %s holds %+v, want its film's guard", user, g)
	}
	if says := s.asked(user, "/ads/index.m3u8?_HLS_primary_id=") > 0; says != (p.by != "path") || s.asked(user, "/ads/") == 0 {
		t.Errorf("%s has seen no ad, or says of it that it is one: %t", user, says)
	}
}
