package e2e

import (
	"testing"
	"time"

	"github.com/streamguard/streamguard/redisstore/redistest"
)

// A tab that says nothing for longer than interval keeps its slot, and goes on
// under the guard it had.
func TestSilentTabKeepsItsSlot(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	n := start(t, s.site(inRedis(redistest.Start(t)), "playback auto", "limit 1", "interval 1s", "ttl 10m"))
	for player, live := range map[string]string{"hls": liveCMAF, "dash": liveDASH, "shaka": liveDASH, "video": liveTS, "native": liveCMAF} {
		for _, test := range []struct {
			name           string
			silence, again func(t *testing.T, p *tab)
			media          string
		}{
			{
				"hidden",
				func(t *testing.T, p *tab) { p.do(t, "freeze", true) },
				func(t *testing.T, p *tab) { p.do(t, "freeze", false) },
				live,
			},
			{
				"paused",
				func(t *testing.T, p *tab) { p.run(t, "pause") },
				func(t *testing.T, p *tab) { p.run(t, "resume") },
				map[bool]string{true: mpd, false: hlsCMAF}[live == liveDASH],
			},
		} {
			user := player + "-" + test.name
			t.Run(user, func(t *testing.T) {
				t.Parallel()
				p := openTab(t, page("http://"+n.addr, player), user)
				p.run(t, "play", tuned(test.media, user))
				p.plays(t)
				test.silence(t, p)
				var silent guard
				eventually(t, "the tab is silent for longer than interval", func() bool {
					held := n.guards(t, user)
					if len(held.Guards) != 1 {
						t.Fatalf("%s holds %+v, want one guard", user, held)
					}
					if held.Guards[0] != silent {
						silent = held.Guards[0] // by what was under way
					}
					return time.Now().After(silent.ExpiresAt.Add(time.Second))
				})
				refused(t, n.ask(t, user, "GET", "/media/byterange/master.m3u8", ""), 1)

				test.again(t, p)
				if test.name == "paused" && player != "native" {
					p.run(t, "quality", 0) // the whole title may be there already
				}
				p.plays(t)
				eventually(t, "the tab goes on under its guard", func() bool {
					is, ok := n.guards(t, user).find(silent.GuardID)
					if !ok || !is.CreatedAt.Equal(silent.CreatedAt) {
						t.Fatalf("the silent tab has lost its guard, %+v", silent)
					}
					return is.ExpiresAt.After(silent.ExpiresAt)
				})
				if state := p.state(t); len(state.Refusals) > 0 {
					t.Errorf("the silent tab was refused: %+v", state.Refusals)
				}
			})
		}
	}
}
