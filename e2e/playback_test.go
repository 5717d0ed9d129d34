package e2e

import (
	"net/http"
	"net/http/httptest"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/streamguard/streamguard/redisstore/redistest"
)

// Renditions, audio, subtitles and a second opening of a playback never count
// beside it.
func TestEveryKindOfPlaybackPlaysToItsEndUnderOneGuard(t *testing.T) {
	eachStore(t, func(t *testing.T, store string) {
		for _, way := range []string{"auto", "stream"} {
			n := start(t, site(files, store, "playback "+way))
			media := map[string]string{ // by user
				"hls " + way:       "/media/cmaf/master.m3u8",
				"dash " + way:      mpd,
				"ts " + way:        "/media/ts/master.m3u8",
				"byterange " + way: "/media/byterange/master.m3u8",
			}
			for user, manifest := range media {
				if out, err := n.play(t, user, manifest); err != nil {
					t.Errorf("%s with playback %s: %v\n%s", manifest, way, err, out)
				}
				held := n.guards(t, user)
				stream := strings.Trim(path.Dir(manifest), "/")
				if len(held.Guards) != 1 || held.Guards[0].StreamID != stream || held.Remaining != 2 {
					t.Fatalf("after %s with playback %s the user holds %+v, want one guard for %s", manifest, way, held, stream)
				}
				// Opened again by the same player, then its tracks, also those that ffmpeg leaves out.
				dir := path.Dir(manifest) + "/"
				if way == "auto" {
					dir += "~" + held.Guards[0].GuardID + "/"
				}
				n.want(t, 200, user, "GET", dir+path.Base(manifest), "")
				if stream == "media/cmaf" {
					n.want(t, 200, user, "GET", dir+"subs/en.m3u8", "")
					n.want(t, 200, user, "GET", dir+"subs/en.vtt", "")
				}
				// Opened under a URL of its own, but not played.
				n.want(t, 200, user, "GET", manifest, "")
				if again := n.guards(t, user); len(again.Guards) != 1 || again.Guards[0].GuardID != held.Guards[0].GuardID {
					t.Errorf("after opening %s again with playback %s the user holds %+v, want one guard as before", manifest, way, again)
				}
			}
			for user, manifest := range media {
				admitted := 0
				for _, a := range n.accesses(t, user) {
					if a.Gate.Held > 1 || a.Status >= 400 {
						t.Errorf("%s with playback %s: %s was answered %d with %d guards held", manifest, way, a.Request.URI, a.Status, a.Gate.Held)
					}
					if a.Gate.Verdict == "admitted" {
						admitted++
					}
				}
				if admitted != 1 {
					t.Errorf("%s with playback %s was admitted %d times", manifest, way, admitted)
				}
			}
		}
	})
}

func TestFourthViewerIsRefusedAndTheThreeGoOn(t *testing.T) {
	eachStore(t, func(t *testing.T, store string) {
		o := newOrigin(t)
		n := start(t, site(o.proxy, store, "playback auto", "limit 3", "interval 3s", "ttl 90s"))
		three := []*viewer{
			n.watch(t, "alice", mpd, endless),
			n.watch(t, "alice", mpd, endless),
			n.watch(t, "alice", "/media/cmaf/master.m3u8", realTime),
		}
		if held := n.guards(t, "alice"); len(held.Guards) != 3 || held.Remaining != 0 {
			t.Fatalf("three viewers hold %+v", held)
		}

		n.playRefused(t, "alice", "/media/cmaf/master.m3u8?fourth")
		refused(t, n.ask(t, "alice", "GET", "/media/cmaf/master.m3u8?fourth", ""), 3)
		refused(t, n.ask(t, "alice", "GET", "/media/byterange/media.mp4?fourth", ""), 3)
		// It is asked whether that is a list of titles.
		if uris := o.asked("fourth"); !slices.Equal(uris, []string{"GET /media/cmaf/master.m3u8?fourth"}) {
			t.Errorf("of the refused playback the origin saw %v", uris)
		}
		n.goOn(t, "alice", three...)

		if out, err := n.play(t, "bob", "/media/cmaf/master.m3u8"); err != nil {
			t.Errorf("alice's viewers are in bob's way: %v\n%s", err, out)
		}

		// It would take the slot again as long as it plays.
		three[1].kill()
		n.want(t, 204, "alice", "DELETE", "/guards/"+three[1].guard, "")
		if held := n.guards(t, "alice"); len(held.Guards) != 2 || held.Remaining != 1 {
			t.Errorf("after the release alice holds %+v, want 2 guards", held)
		}
		three[1] = n.watch(t, "alice", "/media/byterange/master.m3u8", realTime)
		n.playRefused(t, "alice", "/media/cmaf/master.m3u8?fourth")
		n.goOn(t, "alice", three...)
	})
}

func TestSlotOfAKilledViewerIsFreeAfterItsTTL(t *testing.T) {
	const ttl = 2 * time.Second
	eachStore(t, func(t *testing.T, store string) {
		n := start(t, site(files, store, "playback auto", "limit 1", "interval 1s", "ttl 2s"))
		v := n.watch(t, "alice", mpd, endless)
		// Opening the manifest says whether there is a slot and takes none.
		mayPlay := func() bool {
			a := n.ask(t, "alice", "GET", "/media/ts/master.m3u8", "")
			if a.status != 200 && a.status != 429 {
				t.Fatalf("the manifest was answered %d: %s", a.status, a.body)
			}
			return a.status == 200
		}
		eventually(t, "the viewer is in the way for longer than ttl", func() bool {
			v.playing(t)
			g, ok := n.guards(t, "alice").find(v.guard)
			return ok && g.RemovedAt.Sub(g.CreatedAt) > 2*ttl && !mayPlay()
		})
		v.kill()
		eventually(t, "the slot of the killed viewer is free", mayPlay)
		if out, err := n.play(t, "alice", "/media/ts/master.m3u8"); err != nil {
			t.Errorf("a new playback is not admitted: %v\n%s", err, out)
		}
		if _, ok := n.guards(t, "alice").find(v.guard); ok {
			t.Error("the killed viewer still holds a guard")
		}
	})
}

// A HEAD only looks, and OPTIONS is nobody's.
func TestRangesCountLikeGetHeadAndOptionsNever(t *testing.T) {
	eachStore(t, func(t *testing.T, store string) {
		o := newOrigin(t)
		for _, way := range []string{"auto", "stream"} {
			n := start(t, site(o.proxy, store, "playback "+way, "limit 1"))
			n.want(t, 200, "head", "GET", "/media/ts/master.m3u8", "") // now it is known to be no list
			for i, test := range []struct {
				method, rangeOf string
				status          int
				takes           int
			}{
				{"GET", "", 200, 1},
				{"GET", "bytes=0-99", 206, 1},
				{"HEAD", "", 200, 0},
				{"HEAD", "bytes=0-99", 206, 0},
			} {
				header := []string{"Range", test.rangeOf}
				if test.rangeOf == "" {
					header = nil
				}
				user := way + strconv.Itoa(i)
				for _, asset := range []string{"/media/byterange/media.mp4", "/media/byterange/master.m3u8"} {
					n.want(t, 204, user, "OPTIONS", asset, "")
				}
				n.holds(t, user, 0)
				n.want(t, test.status, user, test.method, "/media/byterange/media.mp4", "", header...)
				n.holds(t, user, test.takes)
				n.want(t, 200, user, "GET", "/media/byterange/media.mp4", "")
				n.want(t, test.status, user, test.method, "/media/byterange/media.mp4", "", header...)
				n.holds(t, user, 1)
				for _, asset := range []string{"/media/ts/master.m3u8", "/media/ts/90/000.ts"} {
					before := o.hits()
					n.want(t, 429, user, test.method, asset, "", header...)
					if o.hits() != before {
						t.Errorf("%s %s reached the origin", test.method, asset)
					}
					n.want(t, 204, user, "OPTIONS", asset, "")
				}
			}
			n.want(t, 200, "head", "HEAD", "/media/ts/master.m3u8", "")
			n.holds(t, "head", 0)
		}
	})
}

func TestRefusedNeverReachesTheOrigin(t *testing.T) {
	assets := []string{"/media/ts/master.m3u8", mpd, "/media/cmaf/s0/001.m4s", "/media/cmaf/subs/en.vtt"}
	silent := func(t *testing.T, n *node, o *origin, status int, user string) {
		t.Helper()
		before := o.hits()
		var all sync.WaitGroup // at once: a refusal that repeats another takes a second
		for _, method := range []string{"GET", "HEAD"} {
			for _, asset := range assets {
				for _, header := range [][]string{nil, {"Range", "bytes=0-9"}} {
					all.Go(func() {
						if a, err := n.send(user, method, asset, "", header...); err != nil || a.status != status {
							t.Errorf("%s %s was answered %+v, %v, want %d", method, asset, a, err, status)
						}
					})
				}
			}
		}
		all.Wait()
		if got := o.hits(); got != before {
			t.Errorf("the origin saw %d requests that were answered %d", got-before, status)
		}
	}
	eachStore(t, func(t *testing.T, store string) {
		o := newOrigin(t)
		for _, way := range []string{"auto", "stream"} {
			n := start(t, site(o.proxy, store, "playback "+way, "limit 1"))
			n.want(t, 200, "bob", "GET", assets[0], "") // now it is known to be no list
			before := o.hits()
			n.want(t, 200, "alice", "GET", "/media/byterange/media.mp4", "")
			if got := o.hits() - before; got != 1 {
				t.Errorf("the origin saw an admitted request %d times", got)
			}
			silent(t, n, o, 429, "alice")
			silent(t, n, o, 401, "")
			silent(t, n, o, 400, strings.Repeat("a", 257))
		}
	})
	t.Run("no store", func(t *testing.T) {
		t.Parallel()
		o := newOrigin(t)
		s := redistest.Start(t)
		n := start(t, site(o.proxy, inRedis(s), "playback stream"))
		n.want(t, 200, "alice", "GET", target, "")
		s.Kill()
		n.want(t, 200, "alice", "GET", target, "") // a viewer goes on
		silent(t, n, o, 503, "bob")
	})
}

// origin serves the sample media and remembers what it was asked for.
type origin struct {
	proxy string // for site
	mu    sync.Mutex
	uris  []string
}

func newOrigin(t *testing.T) *origin {
	o := new(origin)
	media := http.FileServer(http.Dir(root + "/testdata"))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o.mu.Lock()
		o.uris = append(o.uris, r.Method+" "+r.RequestURI)
		o.mu.Unlock()
		if r.Method == http.MethodOptions {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		media.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	o.proxy = "reverse_proxy " + server.Listener.Addr().String()
	return o
}

func (o *origin) hits() int { return len(o.asked("")) }

// asked returns the requests whose URI has this part.
func (o *origin) asked(part string) (uris []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, uri := range o.uris {
		if strings.Contains(uri, part) {
			uris = append(uris, uri)
		}
	}
	return uris
}
