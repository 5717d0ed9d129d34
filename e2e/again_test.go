package e2e

import (
	"testing"
	"time"

	"github.com/streamguard/streamguard/redisstore/redistest"
)

// A page that is loaded again finds its own old playback in the way. It plays as
// soon as that has been silent for ten seconds, and is not refused.
func TestPageLoadedAgainPlays(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	n := start(t, s.site(inRedis(redistest.Start(t)), "playback auto", "limit 1"))
	players := map[string]string{"hls": hlsCMAF, "shaka": mpd}
	t.Run("", func(t *testing.T) {
		for player, media := range players {
			t.Run(player, func(t *testing.T) {
				t.Parallel()
				p := openTab(t, page("http://"+n.addr, player), player)
				p.run(t, "play", media)
				p.plays(t)
				n.holds(t, player, 1)
				before := n.guards(t, player).Guards[0]
				p.do(t, "reload")
				began := time.Now()
				p.run(t, "play", media)
				p.plays(t)
				t.Logf("it plays after %v", time.Since(began))
				n.holds(t, player, 1)
				if g := n.guards(t, player).Guards[0]; g.GuardID == before.GuardID {
					t.Errorf("%s plays under the guard of before, %+v", player, g)
				}
			})
		}
	})
	for player := range players {
		n.neverHeldTwo(t, player)
		for _, a := range n.accesses(t, player) {
			if a.Duration > 11 {
				t.Errorf("%s: %s was held for %v s", player, a.Request.URI, a.Duration)
			}
		}
	}
}

// A page that says goodbye and keeps its name plays at once when it is loaded again,
// under the guard that it had. While its user is on another page its slot is free,
// and a page that the browser has kept takes it again.
func TestPageThatSaysGoodbyeIsNeverInItsOwnWay(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	n := start(t, s.site(inRedis(redistest.Start(t)), "playback auto", "limit 1"))
	for player, media := range map[string]string{"hls": hlsCMAF, "dash": mpd, "shaka": mpd, "video": hlsTS, "native": hlsCMAF} {
		t.Run(player, func(t *testing.T) {
			t.Parallel()
			p := openTab(t, page("http://"+n.addr, player), player)
			p.run(t, "playNamed", media)
			p.plays(t)
			n.holds(t, player, 1)
			before := n.guards(t, player).Guards[0]

			p.do(t, "reload")
			p.run(t, "playNamed", media)
			p.plays(t)
			n.holds(t, player, 1)
			if g := n.guards(t, player).Guards[0]; g.GuardID != before.GuardID {
				t.Errorf("%s plays under the guard %+v, before it was loaded again %+v", player, g, before)
			}

			p.do(t, "leave", "http://"+n.addr+"/docs/native.js")
			eventually(t, "the page that is left gives its slot back", func() bool { return len(n.guards(t, player).Guards) == 0 })
			if kept := string(p.do(t, "back")); kept != "true" {
				t.Fatal("the browser has not kept the page")
			}
			eventually(t, "the page takes its slot again", func() bool { return len(n.guards(t, player).Guards) == 1 })
			if g := n.guards(t, player).Guards[0]; g.GuardID != before.GuardID {
				t.Errorf("%s has come back under the guard %+v, before it was left %+v", player, g, before)
			}
			p.plays(t)

			// Another screen takes the slot meanwhile.
			p.do(t, "leave", "http://"+n.addr+"/docs/native.js")
			eventually(t, "the page that is left gives its slot back", func() bool { return len(n.guards(t, player).Guards) == 0 })
			n.want(t, 201, player, "POST", "/guards", `{"streamId":"other"}`)
			p.do(t, "back")
			eventually(t, "the page hears why it has no slot", func() bool { return len(p.state(t).Refusals) == 1 })
		})
	}
}
