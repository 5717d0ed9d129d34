package e2e

import (
	"fmt"
	"testing"

	"github.com/streamguard/streamguard/redisstore/redistest"
)

// A page of five players that wait to be started, with their manifests or without,
// holds nothing, and plays the one that is started.
func TestIdlePlayersHoldNothing(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	n := start(t, s.site(inRedis(redistest.Start(t)), "playback auto", "limit 3"))
	for player, test := range map[string]struct {
		media  string
		loaded int // manifests at least, before it is started
	}{
		"hls":    {liveTS, 5},
		"shaka":  {liveDASH, 5},
		"native": {liveTS, 0},
	} {
		t.Run(player, func(t *testing.T) {
			t.Parallel()
			p := openTab(t, page("http://"+n.addr, player), player)
			var urls []any
			for i := range 5 {
				urls = append(urls, tuned(test.media, fmt.Sprint(player, i)))
			}
			p.run(t, "wait", urls...)
			eventually(t, "the manifests are there", func() bool {
				return s.asked(player, ".m3u8")+s.asked(player, ".mpd") >= test.loaded
			})
			n.holds(t, player, 0)
			p.run(t, "begin", 3)
			p.plays(t)
			n.holds(t, player, 1)
			if g := n.guards(t, player).Guards[0]; g.StreamID != fmt.Sprintf("live/%s3", player) {
				t.Errorf("the player that was started holds %+v", g)
			}
			// The others have asked for nothing but their manifests.
			for _, i := range []int{0, 1, 2, 4} {
				channel := fmt.Sprintf("/live/%s%d/", player, i)
				if all, manifests := s.asked(player, channel), s.asked(player, channel+"cmaf/manifest.mpd")+s.asked(player, channel+"ts/master.m3u8"); all != manifests {
					t.Errorf("of an idle player the origin saw %d requests, of which %d for its manifest", all, manifests)
				}
			}
		})
	}
}
