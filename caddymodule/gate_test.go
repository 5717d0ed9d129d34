package caddymodule

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/lease"
	"github.com/streamguard/streamguard/memstore"
	"github.com/streamguard/streamguard/problem"
)

// site is a provisioned handler in front of an origin that counts.
type site struct {
	*Handler
	t      *testing.T
	logs   *observer.ObservedLogs
	origin int           // requests that reached it
	last   *http.Request // the last of them
	header http.Header   // what it answers with,
	body   []byte        // and with this, or else "media"
	away   func()        // closes the store that cannot answer, if there is one
}

// What is shared by all requests is made here, and not in the bubble of the first test that
// needs it.
func init() {
	zstdReader()
	zstdWriter()
}

// withGate runs a test of a handler with its own memory store, in virtual time.
func withGate(t *testing.T, h Handler, test func(*site)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		if h.Playback == "" {
			h.Playback = "stream" // what most of these tests are not about
		}
		if h.User == "" {
			h.User = "{http.request.header.X-User-Id}"
		}
		name, err := json.Marshal(t.Name())
		if err != nil {
			t.Fatal(err)
		}
		h.StoreRaw = json.RawMessage(`{"store":"memory","name":` + string(name) + `}`)
		ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
		defer cancel()
		if err := h.Provision(ctx); err != nil {
			t.Fatal(err)
		}
		defer h.Cleanup()
		core, logs := observer.New(zap.DebugLevel)
		h.logger = zap.New(core)
		g := &site{Handler: &h, t: t, logs: logs, header: http.Header{}, away: func() {}}
		test(g)
		g.away()
	})
}

// do sends a request and follows what Caddy does with an error: no error routes.
func (g *site) do(r *http.Request) *httptest.ResponseRecorder {
	g.t.Helper()
	w := httptest.NewRecorder()
	r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, &caddyhttp.Server{})
	next := caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		g.origin++
		g.last = r
		for name, values := range g.header {
			w.Header()[name] = values
		}
		if g.body == nil {
			g.body = []byte("media")
		}
		w.Write(g.body)
		return nil
	})
	if err := g.ServeHTTP(w, r, next); err != nil {
		g.t.Fatalf("%s %s: %v", r.Method, r.URL, err)
	}
	return w
}

// ask makes a request of user "u"; fields are header names and values.
func ask(method, url string, fields ...string) *http.Request {
	r := httptest.NewRequest(method, url, nil)
	r.Header.Set("X-User-Id", "u")
	for i := 0; i < len(fields); i += 2 {
		r.Header.Set(fields[i], fields[i+1])
	}
	return r
}

func (g *site) get(want int, url string, fields ...string) *httptest.ResponseRecorder {
	g.t.Helper()
	w := g.do(ask("GET", url, fields...))
	if w.Code != want {
		g.t.Fatalf("GET %s %q: %d, want %d\n%s", url, fields, w.Code, want, w.Body)
	}
	return w
}

// holds expects the number of guards of user "u".
func (g *site) holds(want int) []guard.Guard {
	g.t.Helper()
	guards, err := g.store.Keeper.Store.List(context.Background(), "u")
	if err != nil {
		g.t.Fatal(err)
	}
	if len(guards) != want {
		g.t.Fatalf("user holds %d guards, want %d: %+v", len(guards), want, guards)
	}
	return guards
}

const sid = "Cmcd-Session"

func TestTheOneTooManyIsRefusedAndNeverReachesTheOrigin(t *testing.T) {
	withGate(t, Handler{}, func(g *site) {
		for _, s := range []string{"a", "b", "c"} {
			g.get(200, "/vod/alien/master.m3u8", sid, `sid="`+s+`"`)
			g.get(200, "/vod/alien/1.m4s", sid, `sid="`+s+`"`)
		}
		w := g.get(429, "/vod/brazil/manifest.mpd", sid, `sid="d"`)
		g.get(429, "/vod/brazil/7.m4s", sid, `sid="d"`)
		if g.origin != 6 {
			t.Errorf("the origin saw %d requests, want 6", g.origin)
		}
		// A playlist may be a list of titles, which is not refused: the origin has to
		// say so, once, and nobody sees what it said.
		g.get(429, "/vod/brazil/master.m3u8", sid, `sid="d"`)
		g.get(429, "/vod/brazil/master.m3u8", sid, `sid="d"`)
		if g.origin != 7 {
			t.Errorf("the origin saw %d requests, want 7", g.origin)
		}
		for name, want := range map[string]string{
			"Content-Type":     "application/problem+json",
			"Cache-Control":    "no-store",
			"Retry-After":      "90",
			"Ratelimit-Policy": `"guards";q=3;qu="concurrent-requests"`,
			"Ratelimit":        `"guards";r=0;t=90`,
		} {
			if got := w.Header().Get(name); got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
		var p problem.Problem
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
			t.Fatal(err)
		}
		if p.ErrorCode != problem.ReachedMaxGuards || len(p.Guards) != 3 || p.Guards[0].StreamID != "vod/alien" || p.Guards[0].GuardID == "" {
			t.Errorf("problem %+v", p)
		}
		// The three go on, and another user is not concerned.
		g.get(200, "/vod/alien/7.m4s", sid, `sid="b"`)
		g.get(200, "/vod/alien/master.m3u8", sid, `sid="d"`, "X-User-Id", "other")
		// A slot is free when one has stayed away for the ttl.
		time.Sleep(45 * time.Second)
		g.get(200, "/vod/alien/8.m4s", sid, `sid="a"`)
		g.get(200, "/vod/alien/8.m4s", sid, `sid="b"`)
		time.Sleep(45 * time.Second)
		g.get(200, "/vod/brazil/7.m4s", sid, `sid="d"`)
		g.holds(3)
	})
}

func TestOtherRequestsPassUntouched(t *testing.T) {
	withGate(t, Handler{}, func(g *site) {
		g.header.Set("Cache-Control", "public, s-maxage=60")
		for _, r := range []*http.Request{
			ask("GET", "/index.html"), ask("OPTIONS", "/vod/alien/7.m4s"), ask("GET", "/"), ask("POST", "/login"),
			httptest.NewRequest("GET", "/poster.jpg", nil), httptest.NewRequest("OPTIONS", "/vod/alien/master.m3u8", nil),
		} {
			if w := g.do(r); w.Code != 200 || w.Header().Get("Cache-Control") != "public, s-maxage=60" {
				t.Errorf("%s %s: %d, %v", r.Method, r.URL, w.Code, w.Header())
			}
		}
		g.holds(0)
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "PROPFIND"} { // an encoder publishes by the others
			g.do(ask(method, "/vod/"+method+"/7.m4s"))
		}
		g.do(ask("GET", "/vod/GET/7.m4s", "Range", "bytes=0-"))
		g.holds(1)
	})
}

// Each row is two requests, and whether they are of one playback.
func TestWhatIsOnePlayback(t *testing.T) {
	id := guard.NewID("u", "").String()
	other := guard.NewID("other", "").String()
	for _, c := range []struct {
		name   string
		a, b   *http.Request
		guards int
	}{
		{"same sid, other track", ask("GET", "/v/x/1.m4s", sid, `sid="a"`), ask("GET", "/v/x/sub.vtt", sid, `sid="a"`), 1},
		{"same sid, other stream: zapping", ask("GET", "/v/x/1.m4s", sid, `sid="a"`), ask("GET", "/v/y/1.m4s", sid, `sid="a"`), 1},
		{"sid in header and query", ask("GET", "/v/x/1.m4s", sid, `sid="a"`), ask("GET", "/v/x/1.m4s?CMCD=sid%3D%22a%22"), 1},
		{"other sid", ask("GET", "/v/x/1.m4s", sid, `sid="a"`), ask("GET", "/v/x/1.m4s", sid, `sid="b"`), 2},
		{"same AVPlayer session", ask("GET", "/v/x/1.ts", "X-Playback-Session-Id", "a"), ask("GET", "/v/x/2.ts", "X-Playback-Session-Id", "a"), 1},
		{"other AVPlayer session", ask("GET", "/v/x/1.ts", "X-Playback-Session-Id", "a"), ask("GET", "/v/x/2.ts", "X-Playback-Session-Id", "b"), 2},
		{"guard id everywhere it can be", ask("GET", "/v/x/1.ts?guard="+id), ask("GET", "/v/x/1.ts", "Stream-Guard-Id", strings.ToUpper(id)), 1},
		{"guard id in query and path", ask("GET", "/v/x/1.ts?guard="+id), ask("GET", "/v/x/~"+id+"/1.ts"), 1},
		{"guard id before sid", ask("GET", "/v/x/1.ts?guard="+id, sid, `sid="a"`), ask("GET", "/v/x/1.ts?guard="+id, sid, `sid="b"`), 1},
		{"another user's id is an id of its own", ask("GET", "/v/x/1.ts?guard="+other), ask("GET", "/v/x/~"+other+"/1.ts"), 1},
		{"another user's id and one's own", ask("GET", "/v/x/1.ts?guard="+other), ask("GET", "/v/x/1.ts?guard="+id), 2},
		{"no id, same stream", ask("GET", "/v/x/master.m3u8"), ask("GET", "/v/x/1080p/1.ts"), 1},
		{"no id, other stream", ask("GET", "/v/x/1.ts"), ask("GET", "/v/y/1.ts"), 2},
		{"no id, manifests", ask("GET", "/v/x/master.m3u8"), ask("GET", "/v/y/master.m3u8"), 0},
		{"no id on a track of a stream that has one", ask("GET", "/v/x/1.m4s", sid, `sid="a"`), ask("GET", "/v/x/sub.vtt"), 1},
		{"broken sid is none", ask("GET", "/v/x/1.ts", sid, `sid="a`), ask("GET", "/v/x/2.ts"), 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			withGate(t, Handler{}, func(g *site) {
				g.do(c.a)
				g.do(c.b)
				g.holds(c.guards)
			})
		})
	}
}

func TestAnIdOnAnotherDeviceIsAnotherPlayback(t *testing.T) {
	withGate(t, Handler{Device: "{http.request.header.Device}"}, func(g *site) {
		id := guard.NewID("u", "tv").String()
		g.get(200, "/v/x/1.ts?guard="+id, "Device", "tv")
		g.get(200, "/v/x/1.ts?guard="+id, "Device", "phone")
		g.get(200, "/v/x/1.ts", "Device", "tablet", sid, `sid="a"`)
		g.get(429, "/v/y/1.ts", "Device", "watch", sid, `sid="a"`)
		for i, want := range []string{"tv", "phone", "tablet"} {
			if got := g.holds(3)[i].Device; got != want {
				t.Errorf("guard %d is on %q, want %q", i, got, want)
			}
		}
		if g.holds(3)[0].ID.String() != id {
			t.Errorf("the guard on its own device is %v, want %s", g.holds(3)[0].ID, id)
		}
	})
}

func TestAPlaceholderNamesThePlayback(t *testing.T) {
	withGate(t, Handler{Playback: "{http.request.header.Player}"}, func(g *site) {
		g.get(200, "/v/x/1.ts", "Player", "a")
		g.get(200, "/v/x/2.ts", "Player", "a")
		g.get(200, "/v/x/1.ts", "Player", "b")
		g.holds(2)
	})
}

func TestPathTokens(t *testing.T) {
	withGate(t, Handler{Playback: "auto"}, func(g *site) {
		w := g.get(302, "/v/x/master%20m.m3u8?a=1")
		location := w.Header().Get("Location")
		if !strings.HasPrefix(location, "~") || !strings.HasSuffix(location, "/master%20m.m3u8?a=1") || w.Header().Get("Cache-Control") != "no-store" {
			t.Fatalf("Location: %q, %v", location, w.Header())
		}
		if g.origin != 0 {
			t.Error("the redirected request reached the origin")
		}
		g.holds(0)

		// The manifest takes no slot yet: a player may open it twice and play one.
		g.get(200, "/v/x/"+location)
		if got := g.last.URL.String(); got != "/v/x/master%20m.m3u8?a=1" || g.last.RequestURI != got {
			t.Errorf("the origin was asked for %s (%s)", got, g.last.RequestURI)
		}
		token, _, _ := strings.Cut(location, "/")
		g.holds(0)
		g.get(200, "/v/x/"+token+"/1080p/1.ts")
		g.get(200, "/v/x/"+token+"/audio/1.ts")
		g.get(200, "/v/x/"+token+"/live.m3u8")
		if got := "~" + g.holds(1)[0].ID.String(); got != token {
			t.Errorf("guard %s, want %s", got, token)
		}

		// Two opens of one player are two tokens, but one guard; two players are two.
		second, _, _ := strings.Cut(g.get(302, "/v/x/master.m3u8").Header().Get("Location"), "/")
		if second == token {
			t.Error("two opens were given one token")
		}
		g.get(200, "/v/x/"+second+"/master.m3u8")
		g.holds(1)
		g.get(200, "/v/x/"+second+"/1.ts")
		g.holds(2)

		// What lost its token speaks for the guards on its stream.
		g.get(200, "/v/x/1080p/2.ts")
		g.holds(2)
		g.get(200, "/v/y/1.ts")
		g.holds(3)
		g.get(200, "/v/y/2.ts")
		g.holds(3)

		third, _, _ := strings.Cut(g.get(302, "/v/z/master.m3u8").Header().Get("Location"), "/")
		g.get(429, "/v/z/"+third+"/master.m3u8")
		g.get(429, "/v/z/"+third+"/1.ts")
		// A player that says who it is gets its token by that, if there is room.
		g.get(429, "/v/z/master.m3u8", sid, `sid="a"`)
		named := g.get(302, "/v/z/master.m3u8", sid, `sid="a"`, "X-User-Id", "other").Header().Get("Location")
		if want := "~" + guard.DeriveID("other", "", "a").String() + "/master.m3u8"; named != want {
			t.Errorf("Location: %q, want %q", named, want)
		}
	})
}

// Segments at another host have no token; the manifest that led to them, asked
// for again, is of the same playback.
func TestSegmentsWithoutTheirManifestsTokenAreItsPlayback(t *testing.T) {
	for _, onLimit := range []string{"", "oldest"} {
		withGate(t, Handler{Playback: "auto", Limits: []Limit{{Limit: "1", Replace: onLimit}}}, func(g *site) {
			token, _, _ := strings.Cut(g.get(302, "/v/x/live.m3u8").Header().Get("Location"), "/")
			for range 3 {
				g.get(200, "/v/x/"+token+"/live.m3u8")
				g.get(200, "/v/x/1.ts")
				g.get(200, "/v/x/"+token+"/audio/1.ts")
			}
			if got := "~" + g.holds(1)[0].ID.String(); got != token {
				t.Errorf("%s: guard %s, want %s", onLimit, got, token)
			}
		})
	}
}

func TestATokenIsNeverRedirected(t *testing.T) {
	withGate(t, Handler{Playback: "auto"}, func(g *site) {
		foreign := "~" + guard.NewID("other", "").String()
		g.get(200, "/v/x/"+foreign+"/master.m3u8")
		g.get(200, "/v/x/"+foreign+"/1.ts")
		g.get(200, "/v/x/"+foreign+"/"+foreign+"/1.ts")
		if got := g.last.URL.Path; got != "/v/x/1.ts" {
			t.Errorf("the origin was asked for %s", got)
		}
		g.holds(1)
		g.get(302, "/v/x/~nonsense/master.m3u8")
		// A redirect would turn another method into GET.
		if w := g.do(ask("POST", "/v/x/master.m3u8")); w.Code != 200 {
			t.Errorf("POST: %d", w.Code)
		}
	})
}

func TestWhoIsWatching(t *testing.T) {
	for _, c := range []struct {
		name, anonymous, user string
		want                  int
		code                  problem.Code
	}{
		{"nobody", "deny", "", 401, problem.MissingUser},
		{"nobody, allowed", "allow", "", 200, ""},
		{"too long", "allow", strings.Repeat("x", 257), 400, problem.InvalidUser},
		{"control characters", "allow", "a\tb", 400, problem.InvalidUser},
		{"placeholder syntax is just a name", "deny", "{env.HOME}", 200, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			withGate(t, Handler{Anonymous: c.anonymous}, func(g *site) {
				for range 5 { // anonymous viewers have no limit
					w := g.get(c.want, "/v/"+c.name[:1]+"/1.ts", "X-User-Id", c.user)
					if c.code != "" && !strings.Contains(w.Body.String(), string(c.code)) {
						t.Errorf("body %s, want %s", w.Body, c.code)
					}
				}
				if c.want != 200 && g.origin != 0 {
					t.Error("the request reached the origin")
				}
				if c.want != 200 {
					g.get(c.want, "/guards", "X-User-Id", c.user)
				}
			})
		})
	}
	withGate(t, Handler{}, func(g *site) {
		twice := ask("GET", "/v/x/1.ts", "X-User-Id", "mallory")
		twice.Header.Add("X-User-Id", "alice")
		if w := g.do(twice); w.Code != 400 || !strings.Contains(w.Body.String(), string(problem.InvalidUser)) {
			t.Errorf("two users at once: %d %s", w.Code, w.Body)
		}
		g.get(200, "/v/x/1.ts", "X-User-Id", "alice,bob") // a name like any other
	})
	withGate(t, Handler{User: "{http.auth.user.id}"}, func(g *site) {
		g.get(401, "/v/x/1.ts") // an unknown placeholder is nobody, not one user for all
	})
}

func TestLimitFromAPlaceholder(t *testing.T) {
	withGate(t, Handler{Limits: []Limit{{Limit: "{http.request.header.Plan}"}}}, func(g *site) {
		g.get(200, "/v/a/1.ts", "Plan", "1")
		g.get(429, "/v/b/1.ts", "Plan", "1")
		g.get(200, "/v/b/1.ts", "Plan", "2")
		g.get(429, "/v/c/1.ts", "Plan", "0")
		for _, bad := range []string{"many", "-1", "", "1.5"} {
			g.get(200, "/v/c/1.ts", "Plan", bad)
			g.get(429, "/v/d/1.ts", "Plan", bad) // the default, 3
		}
		if n := g.logs.FilterMessageSnippet("the placeholder in limit gave neither").Len(); n != 1 {
			t.Errorf("the bad limit was logged %d times, want once", n)
		}
	})
}

func TestStreamNames(t *testing.T) {
	for option, want := range map[string]string{
		"":                              "vod/alien",
		"dir 1":                         "vod",
		"name":                          "vod/alien/1080p/movie",
		"cmcd":                          "tt0078748",
		`path_regexp ^/vod/([^/]+)/`:    "alien",
		"{http.request.header.Title}":   "Alien",
		"t-{http.request.header.Title}": "t-Alien",
	} {
		withGate(t, Handler{Stream: option}, func(g *site) {
			g.get(200, "/vod/./alien//1080p/movie-7.m4s", sid, `sid="a",cid="tt0078748"`, "Title", "Alien")
			if got := g.holds(1)[0].Stream; got != want {
				t.Errorf("stream %q: %q, want %q", option, got, want)
			}
		})
	}
	withGate(t, Handler{Stream: "cmcd"}, func(g *site) {
		g.get(200, "/vod/alien/7.m4s")
		if got := g.holds(1)[0].Stream; got != "vod/alien" {
			t.Errorf("without a content id: %q", got)
		}
	})
}

func TestSharedCachesDoNotServeAroundTheGate(t *testing.T) {
	for _, c := range [][2]string{
		{"", "private"},
		{"public, max-age=60", "private, max-age=60"},
		{"Public,S-MaxAge=5 , immutable", "private, immutable"},
		{"max-age=60, proxy-revalidate, must-revalidate", "private, max-age=60, must-revalidate"},
		{"private, max-age=1", "private, max-age=1"},
		{"no-cache", "private, no-cache"},
		{"no-store", "private, no-store"},
		{"public, must-understand, no-store", "private, must-understand, no-store"}, // stored by those who understand
	} {
		withGate(t, Handler{}, func(g *site) {
			if c[0] != "" {
				g.header.Set("Cache-Control", c[0])
			}
			g.header.Set("Cdn-Cache-Control", "max-age=60")
			g.header.Set("Surrogate-Control", "max-age=60")
			g.header.Set("X-Accel-Expires", "60")
			h := g.get(200, "/v/x/1.ts").Header()
			if got := h.Get("Cache-Control"); got != c[1] {
				t.Errorf("Cache-Control %q became %q, want %q", c[0], got, c[1])
			}
			if h.Get("Cdn-Cache-Control") != "" || h.Get("Surrogate-Control") != "" || h.Get("X-Accel-Expires") != "" {
				t.Errorf("a targeted cache control is left: %v", h)
			}
		})
	}
	withGate(t, Handler{}, func(g *site) {
		w := httptest.NewRecorder()
		r := caddyhttp.PrepareRequest(ask("GET", "/v/x/1.ts"), caddy.NewReplacer(), w, &caddyhttp.Server{})
		if err := g.ServeHTTP(w, r, caddyhttp.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
			_, err := w.(io.ReaderFrom).ReadFrom(strings.NewReader("media")) // as io.Copy does, without a status
			return err
		})); err != nil {
			t.Fatal(err)
		}
		if got := w.Header().Get("Cache-Control"); got != "private" || w.Body.String() != "media" {
			t.Errorf("by io.Copy: Cache-Control %q, %q", got, w.Body)
		}
	})
	withGate(t, Handler{CacheControl: "keep"}, func(g *site) {
		g.header.Set("Cache-Control", "public")
		if got := g.get(200, "/v/x/1.ts").Header().Get("Cache-Control"); got != "public" {
			t.Errorf("keep: %q", got)
		}
	})
}

func TestOtherOriginsCanReadWhy(t *testing.T) {
	const page = "https://player.example.com"
	withGate(t, Handler{Playback: "auto", CORS: []string{page}, Limits: []Limit{{Limit: "0"}}}, func(g *site) {
		for _, c := range []struct {
			code int
			r    *http.Request
		}{
			{429, ask("GET", "/v/x/1.ts", "Origin", page)},
			{302, ask("GET", "/v/x/master.m3u8", "Origin", page)},
			{200, ask("GET", "/guards", "Origin", page)},
			{204, ask("OPTIONS", "/guards", "Origin", page, "Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "content-type")},
			{204, ask("OPTIONS", "/guards/cmcd", "Origin", page, "Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "content-type")},
			{400, ask("POST", "/guards/cmcd", "Origin", page)},
		} {
			w := g.do(c.r)
			h := w.Header()
			if w.Code != c.code || h.Get("Access-Control-Allow-Origin") != page || h.Get("Access-Control-Allow-Credentials") != "true" ||
				!strings.Contains(h.Get("Access-Control-Expose-Headers"), "Retry-After") || h.Get("Vary") != "Origin" {
				t.Errorf("%s %s: %d %v", c.r.Method, c.r.URL, w.Code, h)
			}
			if c.r.Method == "OPTIONS" && (h.Get("Access-Control-Allow-Headers") != "content-type" || h.Get("Access-Control-Allow-Methods") != h.Get("Allow")) {
				t.Errorf("preflight: %v", h)
			}
		}
		for _, origin := range []string{"https://evil.example.com", "null", ""} {
			if h := g.do(ask("GET", "/v/x/1.ts", "Origin", origin)).Header(); h.Get("Access-Control-Allow-Origin") != "" {
				t.Errorf("origin %q: %v", origin, h)
			}
		}
	})
	withGate(t, Handler{CORS: []string{"*"}}, func(g *site) {
		h := g.get(200, "/guards", "Origin", page).Header()
		if h.Get("Access-Control-Allow-Origin") != "*" || h.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("any origin: %v", h)
		}
	})
}

func TestEarlyDataTakesNoSlot(t *testing.T) {
	withGate(t, Handler{}, func(g *site) {
		r := ask("GET", "/v/x/1.ts")
		r.TLS = &tls.ConnectionState{}
		if w := g.do(r); w.Code != 425 {
			t.Errorf("%d, want 425", w.Code)
		}
		g.holds(0)
		r.TLS = &tls.ConnectionState{HandshakeComplete: true}
		if w := g.do(r); w.Code != 200 {
			t.Errorf("%d, want 200", w.Code)
		}
	})
}

func TestTarpitHoldsRepeatsBack(t *testing.T) {
	withGate(t, Handler{Limits: []Limit{{Limit: "0"}}}, func(g *site) {
		took := func(f func()) time.Duration {
			start := time.Now()
			f()
			return time.Since(start)
		}
		refused := func() { g.get(429, "/v/x/1.ts", sid, `sid="a"`) }
		if d := took(refused); d != 0 {
			t.Errorf("the first refusal took %v", d)
		}
		if d := took(refused); d != time.Second {
			t.Errorf("the second took %v, want 1s", d)
		}
		refused()
		refused() // denied anew: two seconds are over

		// A bounded number is held at once; the others are answered.
		repeat := func() {
			r := caddyhttp.PrepareRequest(ask("GET", "/v/x/1.ts", sid, `sid="a"`), caddy.NewReplacer(), httptest.NewRecorder(), &caddyhttp.Server{})
			g.ServeHTTP(httptest.NewRecorder(), r, nil)
		}
		for range maxHeld {
			go repeat()
		}
		synctest.Wait()
		if d := took(repeat); d != 0 {
			t.Errorf("one too many was held for %v", d)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		refused()

		// Neither a client that goes nor a server that does is held up.
		ctx, cancel := context.WithCancel(context.Background())
		time.AfterFunc(100*time.Millisecond, cancel)
		if d := took(func() { g.tarpit.hold(ctx) }); d != 100*time.Millisecond {
			t.Errorf("the client was held for %v", d)
		}
		time.AfterFunc(200*time.Millisecond, func() { close(g.tarpit.ending) })
		if d := took(func() { g.tarpit.hold(context.Background()) }); d != 200*time.Millisecond {
			t.Errorf("the shutdown was held up for %v", d)
		}
	})
}

// away is a store that cannot answer.
type away struct{ guard.Store }

var errAway = errors.New("connection refused")

func (away) Acquire(context.Context, guard.Claim, guard.Policy) (guard.Verdict, error) {
	return guard.Verdict{}, errAway
}

func (away) Refresh(context.Context, string, guard.ID, guard.Policy) (guard.Verdict, error) {
	return guard.Verdict{}, errAway
}

func (away) Release(context.Context, string, guard.ID, guard.Policy) (bool, error) {
	return false, errAway
}

func (away) List(context.Context, string) ([]guard.Guard, error) { return nil, errAway }

func (g *site) storeAway() {
	local := memstore.New()
	keeper := lease.New(away{}, local, nil)
	g.Handler.gate.Keeper, g.Handler.gate.Local = keeper, local
	g.api.Store = keeper
	g.away = func() { keeper.Close(); local.Close() }
}

func TestWhileTheStoreIsAway(t *testing.T) {
	for _, c := range []struct {
		option        string
		first, fourth int
	}{
		{"local", 200, 429}, {"allow", 200, 200}, {"deny", 503, 503},
	} {
		withGate(t, Handler{OnStoreError: c.option}, func(g *site) {
			g.storeAway()
			for _, s := range []string{"a", "b", "c"} {
				g.get(c.first, "/v/x/1.ts", sid, `sid="`+s+`"`)
			}
			w := g.get(c.fourth, "/v/y/1.ts", sid, `sid="d"`)
			if w.Code == 503 && (w.Header().Get("Retry-After") != "1" || !strings.Contains(w.Body.String(), "STORE_UNAVAILABLE")) {
				t.Errorf("%s: %v %s", c.option, w.Header(), w.Body)
			}
			g.get(503, "/guards")
			if c.option != "local" && g.logs.FilterMessage("the store cannot answer").Len() == 0 {
				t.Errorf("%s: nothing in the log", c.option)
			}
		})
	}
}

func TestAClientThatHasGoneGetsNoVerdict(t *testing.T) {
	withGate(t, Handler{}, func(g *site) {
		g.storeAway()
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		w := httptest.NewRecorder()
		r := caddyhttp.PrepareRequest(ask("GET", "/v/x/1.ts").WithContext(ctx), caddy.NewReplacer(), w, nil)
		err := g.ServeHTTP(w, r, caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error {
			t.Error("the origin was asked")
			return nil
		}))
		if he, ok := err.(caddyhttp.HandlerError); !ok || he.StatusCode != 499 {
			t.Errorf("error %v, want 499", err)
		}
	})
}

func TestDecisionIsInPlaceholdersAndLogs(t *testing.T) {
	withGate(t, Handler{Limits: []Limit{{Limit: "1"}}, Device: "{http.request.header.Device}"}, func(g *site) {
		g.get(200, "/v/x/1.ts", "Device", "tv")
		repl := g.last.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
		id := g.holds(1)[0].ID.String()
		for key, want := range map[string]string{
			"verdict": "admitted", "user": "u", "stream": "v/x", "device": "tv", "guard": id,
			"held": "1", "limit": "1", "retry_after": "", "problem": "",
		} {
			if got, err := repl.ReplaceOrErr("{http.stream_guard."+key+"}", false, true); err != nil || got != want {
				t.Errorf("{http.stream_guard.%s} is %q (%v), want %q", key, got, err, want)
			}
		}
		if _, ok := repl.Get("http.stream_guard.nonsense"); ok {
			t.Error("an unknown placeholder has a value")
		}
		g.get(429, "/v/y/1.ts", "Device", "tv")
		refused := g.logs.FilterMessage("refused").All()
		if len(refused) != 1 {
			t.Fatalf("%d refusals in the log, want 1", len(refused))
		}
		fields := refused[0].ContextMap()
		about, _ := fields["stream_guard"].(map[string]any)
		if fields["request_id"] == "" || fields["code"] != "REACHED_MAX_GUARDS_COUNT" || fields["detail"] != "stream limit reached: 1 of 1 guards held" || about["verdict"] != "rejected" || about["stream"] != "v/y" || about["held"] != 1 {
			t.Errorf("logged %v", fields)
		}
	})
}

// The operator is told which placeholder is empty, and the client is not.
func TestTheLogSaysWhichPlaceholderIsEmpty(t *testing.T) {
	const device = "{http.request.header.Device}"
	withGate(t, Handler{User: "{http.auth.user.id}", Device: device, DeviceRequired: true}, func(g *site) {
		for n, empty := range []string{"{http.auth.user.id}", device} {
			w := g.get(401, "/v/x/1.ts")
			if said := g.logs.FilterMessage("refused").All(); len(said) != n+1 || said[n].ContextMap()["empty"] != empty || strings.Contains(w.Body.String(), "{http") {
				t.Errorf("logged %v, answered %s, want %s in the log", said, w.Body, empty)
			}
			g.read.user = newSource("u")
		}
	})
	withGate(t, Handler{Limits: []Limit{{Limit: "0"}}}, func(g *site) {
		g.get(429, "/v/x/1.ts")
		if _, empty := g.logs.FilterMessage("refused").All()[0].ContextMap()["empty"]; empty {
			t.Error("a user is said to be empty")
		}
	})
}

// What nobody has asked for is not said to be 0.
func TestWhatIsNotKnownIsNotZero(t *testing.T) {
	withGate(t, Handler{Playback: "auto", OnStoreError: "deny"}, func(g *site) {
		g.storeAway()
		for url, want := range map[string]string{"/v/x/master.m3u8": "redirected /", "/v/x/1.ts": "unavailable /3"} {
			spans := tracetest.NewSpanRecorder()
			ctx, span := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)).Tracer("test").Start(context.Background(), "request")
			r := caddyhttp.PrepareRequest(ask("GET", url).WithContext(ctx), caddy.NewReplacer(), nil, &caddyhttp.Server{})
			if err := g.ServeHTTP(httptest.NewRecorder(), r, nil); err != nil {
				t.Fatal(err)
			}
			span.End()
			repl := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
			if got := repl.ReplaceAll("{http.stream_guard.verdict} {http.stream_guard.held}/{http.stream_guard.limit}", ""); got != want {
				t.Errorf("%s: %s, want %s", url, got, want)
			}
			for _, a := range spans.Ended()[0].Attributes() {
				if a.Value.Type() == attribute.INT64 && a.Value.AsInt64() != 3 {
					t.Errorf("%s: in its span %s is %d", url, a.Key, a.Value.AsInt64())
				}
			}
		}
		about := g.logs.FilterMessage("refused").All()[0].ContextMap()["stream_guard"].(map[string]any)
		if _, held := about["held"]; held || about["limit"] != 3 {
			t.Errorf("logged %v", about)
		}
	})
}

func TestTheAPIKnowsThePlaybackOfTheRequest(t *testing.T) {
	withGate(t, Handler{}, func(g *site) {
		w := g.do(ask("POST", "/guards", sid, `sid="a"`))
		if w.Code != 201 || !strings.HasPrefix(w.Header().Get("Location"), "/guards/") {
			t.Fatalf("%d %v", w.Code, w.Header())
		}
		g.get(200, "/v/x/1.ts", sid, `sid="a"`)
		if got := g.holds(1)[0].ID.String(); "/guards/"+got != w.Header().Get("Location") {
			t.Errorf("the player's guard is %s, the API made %s", got, w.Header().Get("Location"))
		}
		// A guard made by hand is kept alive by the media requests that carry its id.
		w = g.do(ask("POST", "/guards"))
		id := strings.TrimPrefix(w.Header().Get("Location"), "/guards/")
		time.Sleep(80 * time.Second)
		g.get(200, "/v/y/~"+id+"/1.ts")
		time.Sleep(80 * time.Second)
		if got := g.holds(1)[0].ID.String(); got != id {
			t.Errorf("guard %s, want %s", got, id)
		}
		if w := g.do(ask("POST", "/~"+id+"/guards")); w.Code != 200 {
			t.Errorf("API below a token: %d, want 200, the guard it names", w.Code)
		}
	})
	withGate(t, Handler{API: "off"}, func(g *site) {
		g.get(200, "/guards")
		if g.origin != 1 {
			t.Error("api off: the origin was not asked")
		}
	})
	withGate(t, Handler{API: "/api/v1/guards/"}, func(g *site) {
		g.get(200, "/api/v1/guards")
		g.get(404, "/api/v1/guards/"+guard.NewID("u", "").String())
		g.get(200, "/api/v1/guardsmen") // not the API's
	})
}
