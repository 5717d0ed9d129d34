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

// One that keeps its name, as docs/players.md has it, is the same playback.
func TestPageThatKeepsItsNameIsOnePlayback(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	n := start(t, s.site(inRedis(redistest.Start(t)), "playback auto", "limit 2"))
	p := openTab(t, page("http://"+n.addr, "hls"), "alice")
	p.run(t, "playInTab", hlsCMAF)
	p.plays(t)
	before := n.guards(t, "alice").Guards
	for range 2 {
		p.do(t, "reload")
		p.run(t, "playInTab", hlsCMAF)
		p.plays(t)
		if held := n.guards(t, "alice").Guards; len(held) != 1 || held[0].GuardID != before[0].GuardID {
			t.Errorf("loaded again, the page holds %+v, before %+v", held, before)
		}
	}
	// Another tab is another.
	other := p.beside(t, page("http://"+n.addr, "hls"))
	other.run(t, "playInTab", hlsCMAF)
	other.plays(t)
	n.holds(t, "alice", 2)
	p.do(t, "close")
	eventually(t, "the page has said goodbye", func() bool { return len(n.guards(t, "alice").Guards) == 1 })
}
