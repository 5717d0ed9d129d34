package e2e

import (
	"fmt"
	"path"
	"testing"

	"github.com/streamguard/streamguard/redisstore/redistest"
)

// Tabs of one title count one by one; the one too many hears why, from its
// player and from the API, on the gate's own origin and on another; a stop and a
// closed tab free their slots. It has a title of its own: a fourth of the same one
// waits until the others have asked for more (TestTheFourthOfFourEqualPlayersIsRefused).
func TestFourthTabIsToldWhyAndPlaysWhenOneStops(t *testing.T) {
	t.Parallel()
	s, redis := newStage(t), inRedis(redistest.Start(t))
	token := start(t, s.site(redis, "playback auto"))
	stream := start(t, s.site(redis, "playback stream"))
	for _, test := range []struct {
		player, media string
		cross         bool
		cmcd          bool
	}{
		{"hls", hlsCMAF, false, false},
		{"hls", hlsTS, true, true},
		{"dash", mpd, false, true},
		{"dash", mpd, true, false},
		{"shaka", hlsCMAF, false, false},
		{"shaka", mpd, true, true},
		{"video", hlsTS, false, true},
		{"video", mpd, true, false},
		{"native", hlsCMAF, false, false},
		{"native", hlsTS, true, false},
	} {
		user := fmt.Sprintf("%s%s,cross=%t,cmcd=%t", test.player, test.media, test.cross, test.cmcd)
		t.Run(user, func(t *testing.T) {
			t.Parallel()
			n, ids := token, make([]any, 4)
			if test.cmcd {
				n, ids = stream, []any{"a", "b", "c", "d"}
			}
			gate := "http://" + n.addr
			player := page(gate, test.player)
			if test.cross {
				player = page(s.url, test.player)
			}
			var tabs []*tab
			for i := range 4 {
				if i == 0 {
					tabs = append(tabs, openTab(t, player, user))
				} else {
					tabs = append(tabs, tabs[0].beside(t, player))
				}
			}
			three, fourth := tabs[:3], tabs[3]
			title := gate + "/apart/lists/" + path.Base(test.media)
			for i, p := range three {
				p.run(t, "reserveAndPlay", gate+test.media, map[string]any{"playbackId": ids[i]})
				p.plays(t)
			}
			n.holds(t, user, 3)

			fourth.run(t, "play", title, ids[3])
			fourth.refused(t, 1, 3)
			fourth.run(t, "reserveAndPlay", title, map[string]any{"playbackId": ids[3]})
			fourth.refused(t, 2, 3)
			n.holds(t, user, 3)

			three[0].run(t, "stop")
			n.holds(t, user, 2)
			fourth.run(t, "load", title)
			fourth.plays(t)
			n.holds(t, user, 3)
			for i, way := range []string{"keepalive", "beacon"} {
				p := three[1+i]
				p.run(t, "seek", 1) // the film may be over
				p.run(t, "resume")
				p.plays(t)
				p.run(t, "closing", way)
				p.do(t, "close")
				eventually(t, "the closed tab gives its slot back", func() bool { return len(n.guards(t, user).Guards) == 2-i })
			}
			fourth.plays(t)
		})
	}
}

// A page that heeds retryAfter plays as soon as a guard that nobody keeps alive
// is gone.
func TestRefusedPagePlaysByItselfWhenThereIsASlot(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	n := start(t, s.site("store memory", "limit 1", "interval 1s", "ttl 5s"))
	p := openTab(t, page("http://"+n.addr, "hls"), "alice")
	n.want(t, 201, "alice", "POST", "/guards", `{"streamId":"old"}`)
	p.run(t, "reserveAndPlay", hlsCMAF, map[string]any{"wait": true})
	p.refused(t, 1, 1)
	eventually(t, "the page plays by itself", func() bool { return p.state(t).Time > 0 })
	p.plays(t)
	n.holds(t, "alice", 1)
}
