package caddymodule

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/redisstore/redistest"
)

// onEachStore runs a test of one node.
func onEachStore(t *testing.T, caddyfile string, test func(*world)) {
	t.Helper()
	onBothStores(t, func(t *testing.T, in func(*testing.T, int, string, func(*world))) { in(t, 1, caddyfile, test) })
}

// Subtitles that are not there, beside segments that are: in any order, and at the
// same time.
func TestMissingSubtitlesBesideSegments(t *testing.T) {
	onEachStore(t, gateSite("", ""), func(w *world) {
		for n := range 40 {
			user := fmt.Sprintf("u%d", n)
			w.answers(map[string]string{"/v/x/s.vtt": fmt.Sprintf("%dms 404", 1+rand.IntN(5)), "/v/x/2.ts": fmt.Sprintf("%dms media", 1+rand.IntN(5))})
			w.play(user + "/tv " + film + " -> 200")
			w.together(user+"/tv s.vtt -> 404", user+"/tv 2.ts -> 200", user+"/tv s.vtt -> 404", user+"/tv 1.ts -> 200")
			if guards := w.guards(user); len(guards) != 1 {
				w.t.Errorf("%d guards", len(guards))
			}
			w.play(user + "/pc /v/y/m.m3u8 -> 429")
		}
	})
}

// All of a start's requests fail at the same time.
func TestAStartThatFailsInParallel(t *testing.T) {
	onEachStore(t, gateSite("limit 1 replace", ""), func(w *world) {
		for n := range 20 {
			user := fmt.Sprintf("u%d", n)
			w.answers(map[string]string{"/v/y/1.ts": fmt.Sprintf("%dms 404", 1+rand.IntN(5)), "/v/y/2.ts": fmt.Sprintf("%dms 503", 1+rand.IntN(5)), "/v/y/3.ts": "1ms down"})
			w.play(user + "/tv " + film + " -> 200\n" + user + "/tv 1.ts -> 200\n" + user + "/pc /v/y/m.m3u8 -> 200")
			w.together(user+"/pc 1.ts -> 404", user+"/pc 2.ts -> 503", user+"/pc 3.ts -> 502")
			w.play(user + "/tv 2.ts -> 200\n" + user + "/tv m.m3u8 -> 200")
			if guards := w.guards(user); len(guards) != 1 || guards[0].Stream != "v/x" {
				w.t.Errorf("%+v", guards)
			}
		}
	})
}

// Who hangs up may have been served.
func TestAClientThatHangsUpKeepsItsGuard(t *testing.T) {
	onEachStore(t, gateSite("", ""), func(w *world) {
		w.answers(map[string]string{"/v/x/1.ts": "3s media"})
		w.play("tv " + film + " -> 200")
		ctx, hangUp := context.WithCancel(context.Background())
		time.AfterFunc(time.Second, hangUp)
		w.get(ctx, "tv", "GET", "1.ts", true)
		w.play("holds 1 v/x\npc /v/y/m.m3u8 -> 429\nwait 91s\npc /v/y/m.m3u8 -> 200")
	})
}

// Twenty titles whose segments are not there, one each four seconds: nobody else
// is refused for it, and they do not play.
func TestTitlesThatAreNotThere(t *testing.T) {
	onEachStore(t, gateSite("", ""), func(w *world) {
		for n := range 20 {
			w.answers(map[string]string{fmt.Sprintf("/v/t%d/1.ts", n): "404"})
			w.play(fmt.Sprintf("pc /v/t%d/m.m3u8 -> 200\npc #1 -> 404\nholds 0\nwait 4s", n))
		}
		w.play("tv /v/x/m.m3u8 -> 200\ntv #1 -> 200\npc /v/t1/m.m3u8 -> 429")
	})
}

// Giving the slot back, and starts that fail, are no way past a limit.
func TestALimitIsNotPassedByFailing(t *testing.T) {
	onEachStore(t, gateSite("", ""), func(w *world) {
		passed := 0
		for second := range 40 {
			for n := range 20 {
				w.answers(map[string]string{fmt.Sprintf("/v/t%d/404.ts", n): "404"})
				who := fmt.Sprintf("c%d", n)
				if second%4 == 0 {
					w.get(context.Background(), who, "GET", fmt.Sprintf("/v/t%d/404.ts?CMCD=sid%%3D%%22%d%%22", n, n), true)
				}
				if w.get(context.Background(), who, "GET", fmt.Sprintf("/v/t%d/%d.ts?CMCD=sid%%3D%%22%d%%22", n, second+1, n), true).Code == 200 {
					passed++
				}
			}
			time.Sleep(time.Second)
		}
		if passed > 41 {
			w.t.Errorf("%d segments of 20 films passed in 40 s", passed)
		}
	})
}

// monstrous is how many variables a playlist has that nobody writes.
var monstrous = 10_000

// What playlists have in them that nobody writes is answered, and soon.
func TestMonstrousManifests(t *testing.T) {
	var define, doubling, climbs strings.Builder
	define.WriteString("#EXTM3U\n#EXT-X-TARGETDURATION:4\n")
	for n := range monstrous {
		fmt.Fprintf(&define, "#EXT-X-DEFINE:NAME=\"v%d\",VALUE=\"{$v%d}x\"\n", n, n-1)
	}
	for n := range monstrous {
		fmt.Fprintf(&define, "#EXTINF:4,\n{$v%d}/{$v%d}/%d.ts\n", n, monstrous-1, n)
	}
	doubling.WriteString("#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXT-X-DEFINE:NAME=\"v0\",VALUE=\"/aaaaaaaa\"\n")
	for n := range 60 {
		fmt.Fprintf(&doubling, "#EXT-X-DEFINE:NAME=\"v%d\",VALUE=\"{$v%d}{$v%d}\"\n", n+1, n, n)
	}
	doubling.WriteString("#EXTINF:4,\n{$v60}/1.ts\n#EXTINF:4,\n2.ts\n")
	climbs.WriteString("#EXTM3U\n#EXT-X-TARGETDURATION:4\n")
	for n := range monstrous / 5 {
		fmt.Fprintf(&climbs, "#EXTINF:4,\n%s%d.ts\n", strings.Repeat("../", n), n)
	}
	nested := "<MPD>" + strings.Repeat("<![CDATA[", 5*monstrous) + strings.Repeat("]]>", 5*monstrous) + strings.Repeat("<Period>", 5*monstrous) + strings.Repeat("<BaseURL>a/</BaseURL>", 2*monstrous) + "</MPD>"
	onEachStore(t, gateSite("limit 4", ""), func(w *world) {
		w.answers(map[string]string{"/v/a/m.m3u8": define.String(), "/v/b/m.m3u8": doubling.String(), "/v/c/m.m3u8": climbs.String(), "/v/d/m.mpd": nested})
		for _, path := range []string{"/v/a/m.m3u8", "/v/b/m.m3u8", "/v/c/m.m3u8", "/v/d/m.mpd"} {
			w.play(path[3:4] + " " + path + " -> 200\n" + path[3:4] + " 1.ts -> 200")
		}
		w.play("holds 4")
	})
}

// A thousand names for one playback are one under a token, and as many as the
// limit has without.
func TestAThousandNames(t *testing.T) {
	onEachStore(t, gateSite("limit 3", ""), func(w *world) {
		w.play("tv " + film + " -> 200\ntv #1 -> 200")
		for n := range 1000 {
			w.play(fmt.Sprintf("tv #1 sid=s%d X-Playback-Session-Id=p%d Stream-Guard-Id=%s -> 200", n, n, guard.NewID("u", "")))
		}
		w.holds("1", "v/x")
		var passed atomic.Int32
		var asking sync.WaitGroup
		for n := range 1000 {
			asking.Go(func() {
				if w.get(context.Background(), "pc", "GET", "/v/x/1.ts", true, fmt.Sprintf(`CMCD-Session: sid="s%d"`, n)).Code == 200 {
					passed.Add(1)
				}
			})
		}
		asking.Wait()
		w.play("tv #2 -> 200") // it has not been thrown out
		if n := len(w.guards("u")); n > 3 {
			w.t.Errorf("holds %d", n)
		}
		if passed.Load() > 5 { // two at once, and those that waited for these
			w.t.Errorf("%d of a thousand names play beside the first", passed.Load())
		}
	})
}

// What ended is refused under any of its names, whichever node is asked, for as
// long as the mark stands.
func TestWhatEndedIsRefusedUnderAnyNameOnAnyNode(t *testing.T) {
	test := func(w *world) {
		w.play("tv@0 " + film + " -> 200\ntv@0 #1 -> 200\ntv@0 /v/x/1.ts -> 200\ntv@1 /v/x/2.ts -> 200\ntv@1 #2 -> 200\nholds 1 v/x\nrevoke")
		heard := 0 * time.Second
		if w.lost {
			heard = 40 * time.Second // a request on each node that has it refreshed, and the next
		}
		start := time.Now()
		for time.Since(start) < 80*time.Second {
			time.Sleep(500 * time.Millisecond)
			for _, ref := range []string{"1.ts", "/v/x/1.ts", "m.m3u8"} {
				node := rand.IntN(2)
				got := w.get(context.Background(), fmt.Sprintf("tv@%d", node), "GET", ref, true)
				if got.Code != 429 && (node == 0 && !w.lost || time.Since(start) > heard) {
					w.t.Errorf("after %v node %d answers %s with %d", time.Since(start), node, ref, got.Code)
				}
			}
		}
		w.holds("0", "")
	}
	onBothStores(t, func(t *testing.T, in func(*testing.T, int, string, func(*world))) {
		t.Run("two nodes", func(t *testing.T) { in(t, 2, gateSite("", ""), test) })
	})
	inDeafWorlds(t, gateSite("", ""), test)
}

// Whoever comes first after the store has lost everything restores the guard,
// under its own id; nobody is refused, and nobody holds more than he plays.
func TestAStoreThatCameBackEmpty(t *testing.T) {
	test := func(w *world) {
		for n := range 30 {
			user := fmt.Sprintf("u%d", n)
			var playing sync.WaitGroup
			for i := range 3 {
				playing.Go(func() {
					who := fmt.Sprintf("%s/c%d", user, i)
					stream := fmt.Sprintf("/v/f%d/", i)
					ask := func(ref string) {
						at := fmt.Sprintf("%s@%d", who, rand.IntN(len(w.nodes)))
						if got := w.get(context.Background(), at, "GET", ref, true); got.Code != 200 {
							w.t.Errorf("%s %s: %d %s", at, ref, got.Code, got.code())
						}
					}
					ask(stream + "m.m3u8")
					ask("1.ts")
					for end := time.Now().Add(3 * time.Minute); time.Now().Before(end); {
						time.Sleep(time.Duration(1000+rand.IntN(4000)) * time.Millisecond)
						switch rand.IntN(4) {
						case 0:
							ask("2.ts")
						case 1:
							ask("m.m3u8")
						default:
							ask(stream + "3.ts") // has lost its token
						}
					}
				})
			}
			time.Sleep(time.Duration(rand.IntN(60_000)) * time.Millisecond)
			w.flush()
			playing.Wait()
			if guards := w.guards(user); len(guards) != 3 {
				w.t.Errorf("%s holds %d", user, len(guards))
			}
		}
	}
	onBothStores(t, func(t *testing.T, in func(*testing.T, int, string, func(*world))) {
		// On one node: another that does not know the guard makes one without a name,
		// which stays beside the guard that is restored after it.
		in(t, 1, gateSite("limit 3", ""), test)
	})
}

// GStreamer reloads the URL that it was given. Without stickiness it holds a guard
// on each node, as players.md has it.
func TestGStreamerOnTwoNodes(t *testing.T) {
	onBothStores(t, func(t *testing.T, in func(*testing.T, int, string, func(*world))) {
		in(t, 2, gateSite("limit 5", ""), func(w *world) {
			w.answers(map[string]string{"/live/x/m.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:12\n#EXTINF:12,\n7.ts\n#EXTINF:12,\n8.ts\n"})
			for n := range 20 {
				node := n % 2
				w.play(fmt.Sprintf("gst@%d /live/x/m.m3u8 -> 200\ngst@%d #1 -> 200\nwait 12s", node, node))
			}
			if guards := w.guards("u"); len(guards) > 2 {
				w.t.Errorf("holds %d", len(guards))
			}
		})
	})
}

// A client is its address and its program; of an IPv6 address the network counts.
func TestWhatIsOneClient(t *testing.T) {
	for name, c := range map[string]struct {
		address, agent string
		waits          bool
	}{
		"the same":                {"2001:db8:1:2::1", "tv", true},
		"an address of the same":  {"2001:db8:1:2:ffff::9", "tv", true},
		"another network":         {"2001:db8:1:3::1", "tv", false},
		"another program":         {"2001:db8:1:2::1", "pc", false},
		"an address of before v6": {"192.0.2.1", "tv", false},
	} {
		t.Run(name, func(t *testing.T) {
			onEachStore(t, gateSite("", ""), func(w *world) {
				w.player("tv").address = "[2001:db8:1:2::1]"
				w.play("tv " + film + " -> 200\ntv #1 -> 200")
				p := w.player("again")
				p.address, p.agent = c.address, c.agent
				if strings.Contains(c.address, ":") {
					p.address = "[" + c.address + "]"
				}
				if c.waits {
					w.play("again " + film + " -> 200 within 11s")
				} else {
					w.play("again " + film + " -> 429")
				}
			})
		})
	}
}

// A server that shuts down lets go of starts that wait.
func TestShutdownDoesNotWaitForStarts(t *testing.T) {
	s := serve(t, "SITE {\nstream_guard {\n"+user+"limit 1\n}\nrespond ok\n}")
	s.call(200, "GET", "/v/x/1.ts", sid, `sid="a"`)
	const starts = 5
	var waiting sync.WaitGroup
	for n := range starts {
		r, _ := http.NewRequest("GET", "http://"+s.addr+"/v/x/1.ts", nil)
		r.Header.Set("X-User-Id", fmt.Sprintf("v%d", n))
		r.Header.Set(sid, `sid="a"`)
		client := &http.Client{Transport: new(http.Transport)}
		defer client.CloseIdleConnections()
		if resp, err := client.Do(r); err != nil || resp.StatusCode != 200 {
			t.Fatal(resp, err)
		}
		waiting.Go(func() {
			r := r.Clone(context.Background())
			r.Header.Set(sid, `sid="b"`)
			begun := time.Now()
			resp, err := client.Do(r)
			if err != nil || resp.StatusCode != 429 || time.Since(begun) > 8*time.Second {
				t.Errorf("%v, %v after %v", resp, err, time.Since(begun))
			}
		})
	}
	eventually(t, "starts that wait", func() bool { return waits() == starts })
	begun := time.Now()
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	waiting.Wait()
	if d := time.Since(begun); d > 5*time.Second {
		t.Errorf("the shutdown took %v", d)
	}
}

// waits is how many requests wait for what becomes of a doubt.
func waits() int {
	buf := make([]byte, 1<<22)
	return strings.Count(string(buf[:runtime.Stack(buf, true)]), "gate.WaitOut(")
}

// A real proxy between two real servers, both with gates.
func TestTwoServersInARow(t *testing.T) {
	inner := redistest.FreePort(t)
	s := serve(t, "SITE {\nstream_guard_token\nstream_guard {\n"+user+"limit 1\nstore memory outer\n}\nreverse_proxy 127.0.0.1:"+inner+"\n}\n"+
		"http://127.0.0.1:"+inner+" {\nstream_guard_token\nstream_guard {\n"+user+"limit 1\nstore memory inner\n}\n"+
		"header Content-Type application/vnd.apple.mpegurl\nrespond <<M3U8\n#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n/v/x/1.ts\n#EXT-X-ENDLIST\nM3U8\n}")
	h, _ := s.call(302, "GET", "/v/x/m.m3u8")
	_, body := s.call(200, "GET", "/v/x/"+h.Get("Location"))
	token, _, _ := strings.Cut(h.Get("Location"), "/")
	if !strings.Contains(body, "/v/x/"+token+"/1.ts") {
		t.Errorf("the manifest is\n%s", body)
	}
	s.call(200, "GET", "/v/x/"+token+"/1.ts")
	s.call(200, "GET", "/v/x/2.ts")
	s.call(429, "GET", "/v/y/1.ts")
	if got := s.guards().Guards; len(got) != 1 || "~"+got[0].GuardID != token {
		t.Errorf("%+v", got)
	}
}

// While a start is under way that has replaced another playback, that is refused;
// when the start has failed it goes on at once.
func TestWhatAFailedStartReplacedGoesOnAtOnce(t *testing.T) {
	onEachStore(t, gateSite("limit 1 replace", ""), func(w *world) {
		w.answers(map[string]string{"/v/y/1.ts": "3s down"})
		w.play("tv " + film + " -> 200\ntv #1 -> 200\npc /v/y/m.m3u8 -> 200")
		var failing sync.WaitGroup
		failing.Go(func() { w.step("pc #1 -> 502 within 4s") })
		w.play("wait 500ms\ntv #2 -> 429 GUARD_REPLACED\nwait 2s\ntv #1 -> 429 GUARD_REPLACED")
		failing.Wait()
		w.play("wait 10ms\ntv #2 -> 200\ntv m.m3u8 -> 200\nholds 1 v/x")
	})
}

// A new configuration forgets nothing of what its viewers watch.
func TestGStreamerOverAReload(t *testing.T) {
	onEachStore(t, gateSite("", ""), func(w *world) {
		w.play("gst /live/x/m.m3u8 -> 200\ngst #1 -> 200\nwait 4s\ngst /live/x/m.m3u8 -> 200\ngst #1 -> 200")
		defer w.provision(strings.ReplaceAll(gateSite("interval 59s", ""), "store test.shared", "store test.shared 0"))()
		w.play("wait 4s\ngst@1 /live/x/m.m3u8 -> 200\ngst@1 #2 -> 200\nholds 1 live/x")
	})
}
