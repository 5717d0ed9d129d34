package e2e

import (
	"path/filepath"
	"strings"
	"testing"
)

// A cache in front serves nobody what the gate said to somebody else, although
// the site calls all of it public; and caches what the gate does not guard.
func TestACacheInFrontServesNothingAroundTheGate(t *testing.T) {
	t.Parallel()
	origin := start(t, `:8090 {
	header {
		Cache-Control "public, max-age=3600"
		X-Accel-Expires 3600
		-Server
	}
	stream_guard {
		user {header.X-User-Id}
		limit 1
		playback auto
		store memory
	}
	root testdata
	file_server
	handle_errors {
		header {
			Cache-Control "public, max-age=3600"
			-Server
		}
		respond {err.message}
	}
}
`)
	// What the node says about caching goes before what this would do by itself:
	// keep everything for an hour.
	cache := nginx(t, origin, "proxy_cache_path cache keys_zone=films:1m;", `
			proxy_cache films;
			proxy_cache_key $uri$is_args$args;
			proxy_cache_valid any 1h;
			add_header X-Cache $upstream_cache_status always;`)
	const film = "/media/ts/"
	play := func(user string) string {
		t.Helper()
		return cache.want(t, 200, user, "GET", film+"master.m3u8", "").url.Path
	}
	alice, bob := play("alice"), play("bob")
	if alice == bob {
		t.Errorf("bob was sent to alice's %s", alice)
	}
	segments, err := filepath.Glob(filepath.Join(root, "testdata", film, "*", "*.ts"))
	if err != nil || len(segments) == 0 {
		t.Fatalf("%v, %v", segments, err)
	}
	segment := strings.TrimPrefix(segments[0], filepath.Join(root, "testdata"))
	cache.want(t, 200, "alice", "GET", segment, "")
	cache.want(t, 401, "", "GET", segment, "")
	if a := cache.want(t, 200, "bob", "GET", segment, ""); a.header.Get("X-Cache") == "HIT" || a.header.Get("Cache-Control") != "private, max-age=3600" {
		t.Errorf("bob's segment: %v", a.header)
	}
	if mine, hers := cache.guards(t, "bob"), cache.guards(t, "alice"); len(mine.Guards) != 1 || len(hers.Guards) != 1 || mine.Guards[0].GuardID == hers.Guards[0].GuardID {
		t.Errorf("alice holds %+v, bob %+v", hers, mine)
	}
	// The same URL: refused to one, and no other user's business.
	const other = "/media/another/1.ts"
	cache.want(t, 429, "alice", "GET", other, "")
	cache.want(t, 404, "carol", "GET", other, "")
	// The cache is one.
	poster := "/media/README.md"
	cache.want(t, 200, "alice", "GET", poster, "")
	if a := cache.want(t, 200, "bob", "GET", poster, ""); a.header.Get("X-Cache") != "HIT" || a.header.Get("Server") == "Caddy" {
		t.Errorf("what is not guarded is not cached: %v", a.header)
	}
}
