package e2e

import (
	"testing"

	"github.com/streamguard/streamguard/redisstore/redistest"
)

// A player that gets a new token with every channel replaces what its device
// played before.
func TestZappingUnderPathTokensReplacesTheDevicesPlayback(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	n := start(t, s.site(inRedis(redistest.Start(t)), "playback auto", "limit 1", "device {http.request.cookie.device}", "limit 1 per device replace"))
	players := map[string]string{"hls": liveCMAF, "dash": liveDASH, "shaka": liveDASH, "video": liveTS, "native": liveCMAF}
	t.Run("", func(t *testing.T) {
		for player, media := range players {
			t.Run(player, func(t *testing.T) {
				t.Parallel()
				p := newTab(t, "open", page("http://"+n.addr, player), map[string]string{"user": player, "device": "tv"})
				zap(t, n, p, media, player)
			})
		}
	})
	for player := range players {
		for _, a := range n.accesses(t, player) {
			if a.Gate.Held > 1 {
				t.Errorf("%s: %s was answered %d with %d guards held", player, a.Request.URI, a.Status, a.Gate.Held)
			}
		}
	}
}
