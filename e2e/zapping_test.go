package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/streamguard/streamguard/redisstore/redistest"
)

// Under one session id a player may go through all channels with the only slot
// there is: its guard moves along.
func TestZappingMovesTheGuard(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	n := start(t, s.site(inRedis(redistest.Start(t)), "playback stream", "limit 1"))
	players := map[string]string{"hls": liveCMAF, "dash": liveDASH, "shaka": liveDASH, "video": liveTS}
	t.Run("", func(t *testing.T) {
		for player, media := range players {
			t.Run(player, func(t *testing.T) {
				t.Parallel()
				zap(t, n, openTab(t, page("http://"+n.addr, player), player), media, player, player)
			})
		}
	})
	for player := range players {
		n.neverHeldTwo(t, player)
	}
}

// zap goes through ten channels, half of them without waiting for the picture.
func zap(t *testing.T, n *node, p *tab, media, user string, id ...any) {
	t.Helper()
	channel := func(i int) string { return fmt.Sprintf("%s%d", user, i) }
	p.run(t, "play", append([]any{tuned(media, channel(0))}, id...)...)
	p.plays(t)
	for i := 1; i <= 10; i++ {
		p.run(t, "load", tuned(media, channel(i)))
		if i%2 == 0 {
			p.plays(t)
		}
	}
	last := "live/" + channel(10)
	eventually(t, "the guard is one for the last channel", func() bool {
		n.holds(t, user, 1)
		return n.guards(t, user).Guards[0].StreamID == last
	})
	if state := p.state(t); len(state.Refusals) > 0 {
		t.Errorf("the zapping tab was refused: %+v", state.Refusals)
	}
}

// A box that names nothing goes through all channels with the only slot there is:
// it replaces what the same client played before.
func TestZappingWithoutANameReplacesTheClientsPlayback(t *testing.T) {
	t.Parallel()
	const user, channels = "127.0.3.1", 10
	s := newStage(t)
	n := start(t, s.site(inRedis(redistest.Start(t)), "playback auto", "limit 1", "limit 1 per client replace"))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := n.commandLine(ctx, t, "mpv", user, tuned(liveTS, "zap0"))
	first := cmd.Args[len(cmd.Args)-1]
	for i := 1; i < channels; i++ {
		cmd.Args = append(cmd.Args, strings.Replace(first, "zap0", fmt.Sprint("zap", i), 1))
	}
	cmd.Args = append(cmd.Args, "--length=1") // of each
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("mpv: %v, %v\n%s", err, ctx.Err(), out)
	}
	n.holds(t, user, 1)
	if g := n.guards(t, user).Guards[0]; g.StreamID != fmt.Sprint("live/zap", channels-1) {
		t.Errorf("after zapping mpv holds %+v", g)
	}
	for i := range channels {
		if s.asked(user, fmt.Sprintf("/zap%d/ts/90/0", i))+s.asked(user, fmt.Sprintf("/zap%d/ts/180/0", i)) == 0 {
			t.Errorf("of channel %d nothing was played", i)
		}
	}
	n.neverHeldTwo(t, user)
}

// neverHeldTwo insists that a user was never refused and never held two slots.
func (n *node) neverHeldTwo(t *testing.T, user string) {
	t.Helper()
	for _, a := range n.accesses(t, user) {
		if a.Gate.Held > 1 || a.Status >= 400 && a.Status != 499 { // a player leaves what it no longer needs
			t.Errorf("%s: %s was answered %d with %d guards held", user, a.Request.URI, a.Status, a.Gate.Held)
		}
	}
}
