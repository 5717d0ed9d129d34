package e2e

import (
	"flag"
	"strings"
	"testing"

	"github.com/streamguard/streamguard/redisstore/redistest"
)

const (
	hlsCMAF  = "/media/cmaf/master.m3u8"
	hlsTS    = "/media/ts/master.m3u8"
	liveCMAF = "/live/{channel}/cmaf/master.m3u8"
	liveTS   = "/live/{channel}/ts/master.m3u8"
	liveDASH = "/live/{channel}/cmaf/manifest.mpd"
)

// plays is what each player in the browser can play. Their names are those of
// the modules in docs/players.md.
var plays = map[string][]string{
	"hls":    {hlsCMAF, hlsTS, liveCMAF, liveTS},
	"dash":   {mpd, liveDASH},
	"shaka":  {hlsCMAF, hlsTS, mpd, liveCMAF, liveTS, liveDASH},
	"video":  {hlsCMAF, hlsTS, mpd, liveCMAF, liveTS, liveDASH},
	"native": {hlsCMAF, hlsTS, liveCMAF, liveTS},
}

// page is where a player is, on the gate or on the stage itself.
func page(origin, player string) string { return origin + "/player/page.html?player=" + player }

// playback is a player with something that it plays, as a user who has no other.
type playback struct{ player, media, user string }

var bothWays = flag.Bool("both", false, "play all media with playback auto and with stream (make e2e)")

// playbacks are all players with all that they play: each in one of two ways, or in both.
// To playback stream a segment is as good as another: there it is without MPEG-TS.
func playbacks(way string) (all []playback) {
	for player, list := range plays {
		turn := 0
		for _, media := range list {
			is, only := "auto", strings.Contains(media, "/ts/")
			if !only {
				is = []string{"auto", "stream"}[turn%2]
				turn++
			}
			if is != way && (only || !*bothWays) {
				continue
			}
			user := player + strings.NewReplacer("/{channel}", "", "/", "-").Replace(media)
			all = append(all, playback{player, tuned(media, user), user})
		}
	}
	return all
}

// tuned is live media of a channel of the test's own.
func tuned(media, channel string) string { return strings.ReplaceAll(media, "{channel}", channel) }

func (p playback) live() bool { return strings.HasPrefix(p.media, "/live/") }

// steerable reports whether the player lets a page choose renditions.
func (p playback) steerable() bool { return p.player != "native" }

// subtitled reports whether there are subtitles that the page can choose.
func (p playback) subtitled() bool {
	return p.steerable() && strings.HasPrefix(p.media, "/media/cmaf/")
}

// renditions are where the segments of each size of the picture are.
func (p playback) renditions() []string {
	if strings.Contains(p.media, "/ts/") {
		return []string{"/90/0", "/180/0"}
	}
	return []string{"/s0/0", "/s1/0"}
}

// Renditions, audio, subtitles and seeking never count beside the playback,
// whether a path token names it or CMCD.
func TestPlaybackInABrowserHoldsOneGuardAllTheTime(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"auto", "stream"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			n := start(t, s.site(inRedis(redistest.Start(t)), "playback "+way))
			t.Run("", func(t *testing.T) {
				for _, p := range playbacks(way) {
					t.Run(p.user, func(t *testing.T) {
						t.Parallel()
						var id []any // that CMCD carries
						if way == "stream" {
							id = append(id, "session of "+p.user)
						}
						watchAll(t, s, n, p, id...)
					})
				}
			})
			for _, p := range playbacks(way) {
				admitted := make(map[string]bool) // guards; requests at the same time share a verdict
				n.neverHeldTwo(t, p.user)
				for _, a := range n.accesses(t, p.user) {
					if named := strings.Contains(a.Request.URI, "CMCD="); named != (way == "stream" && p.player != "native") {
						t.Errorf("%s asked for %s with playback %s", p.user, a.Request.URI, way)
					}
					if a.Gate.Verdict == "admitted" {
						admitted[a.Gate.Guard] = true
					}
				}
				want := 1
				if way == "stream" {
					want = 0 // a playback with a name has reserved its guard
				}
				if len(admitted) != want {
					t.Errorf("%s was admitted under the guards %v, want %d", p.user, admitted, want)
				}
			}
		})
	}
}

// A manifest's URLs that climb out of its folder, over the token, lead where
// they should and have it still.
func TestURLsThatClimbKeepTheToken(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	n := start(t, s.site(inRedis(redistest.Start(t)), "playback auto"))
	players := []playback{
		{"hls", "master.m3u8", "hls"},
		{"native", "master.m3u8", "native"},
		{"shaka", "master.m3u8", "shaka-hls"},
		{"video", "master.m3u8", "video-hls"},
		{"dash", "manifest.mpd", "dash"},
		{"shaka", "manifest.mpd", "shaka-dash"},
		{"video", "manifest.mpd", "video-dash"},
	}
	t.Run("", func(t *testing.T) {
		for _, p := range players {
			t.Run(p.user, func(t *testing.T) {
				t.Parallel()
				page := openTab(t, page("http://"+n.addr, p.player), p.user)
				page.run(t, "play", "/apart/lists/"+p.media)
				page.plays(t)
				n.holds(t, p.user, 1)
			})
		}
	})
	for _, p := range players {
		for _, a := range n.accesses(t, p.user) {
			if a.Gate.Verdict != "redirected" && !strings.Contains(a.Request.URI, "/~") {
				t.Errorf("%s asked for %s, without the token: %s", p.user, a.Request.URI, a.Gate.Verdict)
			}
		}
	}
}

// watchAll has a page play and switch through all there is.
func watchAll(t *testing.T, s *stage, n *node, p playback, id ...any) {
	page := openTab(t, page("http://"+n.addr, p.player), p.user)
	page.run(t, "play", append([]any{p.media}, id...)...)
	page.plays(t)
	if p.steerable() {
		for quality, rendition := range p.renditions() {
			page.run(t, "quality", quality)
			s.asksAgain(t, p.user, rendition)
			page.plays(t) // dash.js falls over a switch on the heels of another
		}
	}
	if p.subtitled() {
		page.run(t, "text")
		eventually(t, "subtitles are fetched", func() bool { return s.asked(p.user, "/subs/en.vtt") > 0 })
	}
	if !p.live() {
		page.run(t, "seek", 40)
	}
	page.plays(t)
	if held := n.guards(t, p.user); len(held.Guards) != 1 {
		t.Errorf("%s holds %+v, want one guard", p.user, held)
	}
}
