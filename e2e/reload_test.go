package e2e

import (
	"strings"
	"testing"
)

func TestReloadKeepsGuardsAndPlayersAndAppliesTheNewLimit(t *testing.T) {
	eachStore(t, func(t *testing.T, store string) {
		config := func(limit string) string {
			return site(files, store, "playback auto", "limit "+limit, "interval 3s", "ttl 90s")
		}
		n := start(t, config("2"))
		viewers := []*viewer{
			n.watch(t, "alice", mpd, endless),
			n.watch(t, "alice", "/media/cmaf/master.m3u8", realTime),
		}
		refused(t, n.ask(t, "alice", "GET", "/media/ts/master.m3u8", ""), 2)

		if out, code := n.reload(t, site(files, "store nosuch")); code == 0 || !strings.Contains(out, "nosuch") {
			t.Errorf("a reload with an unknown store ended with %d: %s", code, out)
		}
		n.goOn(t, "alice", viewers...)
		refused(t, n.ask(t, "alice", "GET", "/media/ts/master.m3u8", ""), 2)

		n.reloadWell(t, config("3"))
		eventually(t, "the new limit", func() bool { return n.guards(t, "alice").Limit == 3 }) // the old server may still take a connection
		if held := n.guards(t, "alice"); len(held.Guards) != 2 {
			t.Errorf("after the reload alice holds %+v, want 2 of 3 guards", held)
		}
		viewers = append(viewers, n.watch(t, "alice", "/media/ts/master.m3u8", realTime))
		refused(t, n.ask(t, "alice", "GET", "/media/byterange/master.m3u8", ""), 3)

		// Fewer than are playing: whoever was admitted stays.
		n.reloadWell(t, config("1"))
		n.goOn(t, "alice", viewers...)
		refused(t, n.ask(t, "alice", "GET", "/media/byterange/master.m3u8", ""), 3)
		if held := n.guards(t, "alice"); held.Limit != 1 || held.Remaining != 0 {
			t.Errorf("after the second reload alice holds %+v, want 3 of 1 guards", held)
		}
		for _, a := range n.accesses(t, "alice") {
			if a.Status >= 500 {
				t.Errorf("%s was answered %d", a.Request.URI, a.Status)
			}
		}
	})
}

func (n *node) reloadWell(t *testing.T, caddyfile string) {
	t.Helper()
	if out, code := n.reload(t, caddyfile); code != 0 {
		t.Fatalf("caddy reload ended with %d: %s", code, out)
	}
}
