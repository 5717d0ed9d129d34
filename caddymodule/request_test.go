package caddymodule

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/problem"
)

// What names the user comes once: who verified one of two need not have read the
// one that counts.
func TestWhatNamesTheUserComesOnce(t *testing.T) {
	for _, c := range []struct {
		user    string
		url     string
		headers http.Header
		want    string // the user, or "" for 400
	}{
		{"{http.request.header.X-User-Id}", "/v/x/1.ts", http.Header{"X-User-Id": {"a", "b"}}, ""},
		{"{http.request.header.X-User-Id}", "/v/x/1.ts", http.Header{"X-User-Id": {"a", ""}}, ""},
		{"{http.request.header.x-user-id}", "/v/x/1.ts", http.Header{"X-User-Id": {"a", "a"}}, "a"},
		{"acme-{http.request.header.X-User-Id}", "/v/x/1.ts", http.Header{"X-User-Id": {"a", "b"}}, ""},
		{"acme-{http.request.header.X-User-Id}", "/v/x/1.ts", http.Header{"X-User-Id": {"a", "a"}}, "acme-a"},
		{"{http.request.cookie.session}", "/v/x/1.ts", http.Header{"Cookie": {"SESSION=r1; session=real"}}, ""},
		{"{http.request.cookie.session}", "/v/x/1.ts", http.Header{"Cookie": {"session=r1", "session=real"}}, ""},
		{"{http.request.cookie.session}", "/v/x/1.ts", http.Header{"Cookie": {"session=a; Session=a; sessions=b"}}, "a"},
		{"x{http.request.cookie.session}", "/v/x/1.ts", http.Header{"Cookie": {"session=a; session=b"}}, ""},
		{"{http.request.uri.query.token}", "/v/x/1.ts?token=a&token=b", nil, ""},
		{"{http.request.uri.query.token}", "/v/x/1.ts?token=a&Token=b&x=c", nil, ""},
		{"{http.request.uri.query.token}", "/v/x/1.ts?token=a&tokens=b", nil, "a"},
		{"{http.request.header.X-A}-{http.request.header.X-B}", "/v/x/1.ts", http.Header{"X-A": {"a"}, "X-B": {"b", "c"}}, ""},
		{"{http.request.header.X-A}-{http.request.header.X-B}", "/v/x/1.ts", http.Header{"X-A": {"a"}, "X-B": {"b"}}, "a-b"},
	} {
		withGate(t, Handler{User: c.user}, func(g *site) {
			r := httptest.NewRequest("GET", c.url, nil)
			for name, values := range c.headers {
				r.Header[name] = values
			}
			w := g.do(r)
			switch {
			case c.want == "" && (w.Code != 400 || !strings.Contains(w.Body.String(), string(problem.InvalidUser))):
				t.Errorf("%s, %s %v: %d %s", c.user, c.url, c.headers, w.Code, w.Body)
			case c.want != "" && (w.Code != 200 || g.says("user") != c.want):
				t.Errorf("%s, %s %v: %d, user %q, want %q", c.user, c.url, c.headers, w.Code, g.says("user"), c.want)
			}
		})
	}
}

// says is a placeholder of the last request that reached the origin.
func (g *site) says(what string) string {
	if g.last == nil {
		return ""
	}
	return g.last.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer).ReplaceAll("{http.stream_guard."+what+"}", "")
}

func TestUsersAreFoldedWhereAsked(t *testing.T) {
	const composed, decomposed = "Ren\u00e9", "Rene\u0301"
	for _, c := range []struct {
		fold []string
		held int // by both spellings of one person
	}{{nil, 1}, {[]string{"lower"}, 1}, {[]string{"nfc"}, 1}, {[]string{"nfc", "lower"}, 2}} {
		withGate(t, Handler{User: "{http.request.uri.query.u}", UserFold: c.fold, Limits: []Limit{{Limit: "2"}}}, func(g *site) {
			g.get(200, "/v/x/1.ts?u="+composed, sid, `sid="a"`)
			g.get(200, "/v/x/1.ts?u="+strings.ToUpper(decomposed), sid, `sid="b"`)
			if got := g.says("held"); got != strconv.Itoa(c.held) {
				t.Errorf("%v: %s guards held, want %d", c.fold, got, c.held)
			}
		})
	}
}

func TestADeviceCanBeRequired(t *testing.T) {
	withGate(t, Handler{Device: "{http.request.cookie.device}", DeviceRequired: true}, func(g *site) {
		if w := g.get(401, "/v/x/1.ts"); !strings.Contains(w.Body.String(), string(problem.MissingDevice)) {
			t.Errorf("%s", w.Body)
		}
		g.get(200, "/v/x/1.ts", "Cookie", "device=tv")
		if w := g.do(ask("POST", "/guards")); w.Code != 401 {
			t.Errorf("POST /guards: %d", w.Code)
		}
		g.holds(1)
	})
}

// An option that never has a value is a mistake, and says so once; one that has
// it now and then is not.
func TestAnOptionWithoutAValueIsWarnedOf(t *testing.T) {
	h := Handler{Device: "{http.request.cookie.device}", Labels: map[string]string{"class": "{http.request.header.Class}"}}
	withGate(t, h, func(g *site) {
		for n := range 2*inARow + 10 {
			fields := []string{}
			if n%(inARow-1) == 0 {
				fields = append(fields, "Class", "tv")
			}
			g.get(200, "/v/x/1.ts", fields...)
		}
		logs := g.logs.FilterMessageSnippet("has had no value").All()
		if len(logs) != 1 || logs[0].ContextMap()["option"] != "device" || logs[0].ContextMap()["placeholder"] != h.Device {
			t.Errorf("%v", logs)
		}
	})
}

func TestPlans(t *testing.T) {
	withGate(t, Handler{Limits: []Limit{{Limit: "{http.request.header.Plan}", Or: "1"}, {Limit: "{http.request.header.Each}", Or: "unlimited", Per: "stream"}}}, func(g *site) {
		for _, c := range []struct{ plan, each, limit string }{
			{"2", "", "2"}, {"0", "", "0"}, {"9999", "", strconv.Itoa(guard.MaxLimit)}, {"unlimited", "", "unlimited"}, {"", "", "1"}, {"99999999999999999999", "", strconv.Itoa(guard.MaxLimit)}, {"-99999999999999999999", "", "1"}, {"-1", "", "1"}, {"1e3", "", "1"}, {" 2", "", "1"},
		} {
			g.do(ask("GET", "/v/x/1.ts", "Plan", c.plan, sid, `sid="a"`, "X-User-Id", "user of "+c.plan))
			if c.limit == "0" {
				continue // which never reaches the origin
			}
			if got := g.says("limit"); got != c.limit {
				t.Errorf("plan %q: limit %s, want %s", c.plan, got, c.limit)
			}
		}
		g.get(200, "/v/x/1.ts", "Plan", "5", "Each", "1", sid, `sid="a"`)
		g.get(429, "/v/x/1.ts", "Plan", "5", "Each", "1", sid, `sid="b"`, "User-Agent", "another")
		g.get(200, "/v/x/1.ts", "Plan", "5", "Each", "2", sid, `sid="c"`)
		if n := g.logs.FilterMessageSnippet("the placeholder in limit gave neither").Len(); n != 2 {
			t.Errorf("%d lines about placeholders that gave no number, want one for each", n)
		}
		w := g.get(429, "/v/y/1.ts", "Plan", "0", sid, `sid="z"`)
		if w.Header().Get("Retry-After") != "" || !strings.Contains(w.Body.String(), "waiting does not help") {
			t.Errorf("a plan without streams: %v %s", w.Header(), w.Body)
		}
	})
}

func TestTwoGatesThatCountOneRequestAreTold(t *testing.T) {
	srv := new(caddyhttp.Server)
	withGate(t, Handler{}, func(g *site) {
		g.neighbours = joinServer(srv)
		other := joinServer(srv)
		defer other.leave()
		for range 3 {
			r := caddyhttp.PrepareRequest(ask("GET", "/v/x/1.ts"), caddy.NewReplacer(), httptest.NewRecorder(), srv)
			inner := caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
				return g.ServeHTTP(w, r, caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return nil }))
			})
			if err := g.ServeHTTP(httptest.NewRecorder(), r, inner); err != nil {
				t.Fatal(err)
			}
		}
		if n := g.logs.FilterMessageSnippet("two stream_guard count").Len(); n != 1 {
			t.Errorf("warned %d times, want once", n)
		}
	})
	if len(neighbourhoods) != 0 {
		t.Errorf("%d servers are remembered", len(neighbourhoods))
	}
}

// A fault of the gate's own costs no viewer his film, and leaves no lock held.
func TestAPanicPasses(t *testing.T) {
	for onError, code := range map[string]int{"local": 200, "deny": 503} {
		withGate(t, Handler{OnStoreError: onError}, func(g *site) {
			aMinute.last.Store(0)
			whole := g.read.stream
			g.read.stream = func(*http.Request, *caddy.Replacer) string { panic("a fault") }
			for range 3 {
				g.get(code, "/v/x/1.ts", sid, `sid="a"`)
			}
			logs := g.logs.FilterMessageSnippet("the gate failed").All()
			if len(logs) != 1 || !strings.Contains(fmt.Sprint(logs[0].ContextMap()["stack"]), "TestAPanicPasses") {
				t.Errorf("%s: logged %d times", onError, len(logs))
			}
			g.read.stream = whole
			g.get(200, "/v/x/1.ts", sid, `sid="a"`)
			g.holds(1)

			g.read.stream = func(*http.Request, *caddy.Replacer) string { panic(http.ErrAbortHandler) }
			defer func() {
				if err, _ := recover().(error); !errors.Is(err, http.ErrAbortHandler) {
					t.Errorf("%s: an abort is %v", onError, err)
				}
			}()
			g.do(ask("GET", "/v/x/1.ts", sid, `sid="a"`))
		})
	}
}

// A preflight has no user, and the origin does not see the token.
func TestAPreflightReachesTheOriginWithoutTheToken(t *testing.T) {
	withGate(t, Handler{Playback: "auto", User: "{http.request.cookie.session}"}, func(g *site) {
		r := httptest.NewRequest("OPTIONS", "/v/x/~"+guard.NewID("u", "").String()+"/1.m4s", nil)
		if w := g.do(r); w.Code != 200 || g.last.URL.Path != "/v/x/1.m4s" {
			t.Errorf("%d, the origin was asked for %s", w.Code, g.last.URL.Path)
		}
	})
}

// A fallback page beside the gate takes neither films nor the API.
func TestAFallbackPageTakesNothingOfTheGates(t *testing.T) {
	for name, fallback := range map[string]string{
		"try_files":       "try_files {path} /demo/index.html",
		"rewrite":         "@missing not file\nrewrite @missing /demo/index.html",
		"token in front":  "stream_guard_token\ntry_files {path} /demo/index.html",
		"in a route":      "route {\ntry_files {path} /demo/index.html\nGATE\nfile_server\n}",
		"php in the back": "php_fastcgi 127.0.0.1:9 {\ntry_files {path} /demo/index.html\n}",
	} {
		gate := "stream_guard {\n" + user + "store memory \"fallback " + name + "\"\n}"
		site := "SITE {\nroot ..\n" + fallback + "\n" + gate + "\nfile_server\n}"
		if strings.Contains(fallback, "GATE") {
			site = "SITE {\nroot ..\n" + strings.ReplaceAll(fallback, "GATE", gate) + "\n}"
		}
		s := serve(t, site)
		h, _ := s.call(302, "GET", "/testdata/media/cmaf/master.m3u8")
		at := "/testdata/media/cmaf/" + h.Get("Location")
		if _, body := s.call(200, "GET", at); !strings.HasPrefix(body, "#EXTM3U") {
			t.Errorf("%s: the manifest under its token is %.60q", name, body)
		}
		if h, _ := s.call(200, "GET", strings.Replace(at, "master.m3u8", "s0/init.mp4", 1)); !strings.Contains(h.Get("Content-Type"), "mp4") {
			t.Errorf("%s: a segment under its token is %v", name, h)
		}
		if _, body := s.call(200, "GET", "/guards"); !strings.Contains(body, `"guards":[{`) {
			t.Errorf("%s: GET /guards: %.60q", name, body)
		}
		if _, body := s.call(200, "GET", "/some/page"); name != "php in the back" && !strings.Contains(body, "<html") {
			t.Errorf("%s: the fallback page is %.60q", name, body)
		}
	}
}

// Where nobody may watch, a URL that was somebody's leads to the one without its token.
func TestATokenOfNobodyIsTakenAway(t *testing.T) {
	withGate(t, Handler{Playback: "auto", Anonymous: "allow"}, func(g *site) {
		r := httptest.NewRequest("GET", "/v/x/~"+guard.NewID("u", "").String()+"/1.m4s?a=1", nil)
		if w := g.do(r); w.Code != 307 || w.Header().Get("Location") != "../1.m4s?a=1" || g.origin != 0 {
			t.Errorf("%d %v, %d requests reached the origin", w.Code, w.Header(), g.origin)
		}
		if w := g.do(httptest.NewRequest("GET", "/v/x/1.m4s?a=1", nil)); w.Code != 200 {
			t.Errorf("%d", w.Code)
		}
	})
}

// A rule in front of the gate that goes by files or paths is told of at load.
func TestRulesInFrontOfTheGateAreToldOf(t *testing.T) {
	const gate = "stream_guard {\nuser {header.X-User-Id}\n}\n"
	for name, c := range map[string]struct{ site, want string }{
		"nothing":            {gate + "file_server", ""},
		"redir":              {"root /srv\n@nf not file\nredir @nf /index.html\n" + gate + "file_server", "not file"},
		"=404":               {"root /srv\ntry_files {path} =404\n" + gate + "file_server", "file"},
		"try_files":          {"root /srv\ntry_files {path} /index.html\n" + gate + "file_server", ""},
		"basic_auth":         {"basic_auth /admin/* {\nbob $2a$14$Zkx19XLiW6VYouLHR5NmfOFU0z2GTNmpkT/5qqR7hx4IjWJPDhjvG\n}\n" + gate + "file_server", "path"},
		"basic_auth for all": {"basic_auth {\nbob $2a$14$Zkx19XLiW6VYouLHR5NmfOFU0z2GTNmpkT/5qqR7hx4IjWJPDhjvG\n}\n" + gate + "file_server", ""},
		"forward_auth":       {"forward_auth /premium/* login:9000 {\nuri /\n}\n" + gate + "file_server", "path"},
		"a token in front":   {"stream_guard_token\nforward_auth /premium/* login:9000 {\nuri /\n}\n" + gate + "file_server", ""},
		"behind the gate":    {gate + "respond /robots.txt ok\nhandle /api/* {\nrespond ok\n}\nfile_server", ""},
		"in a handle":        {"handle /films/* {\nroot /srv\n@nf not file\nredir @nf /\n" + gate + "file_server\n}", "not file"},
		"a gate in no route": {"file_server", ""},
		"a rule of its own":  {"redir /old/* /new\n" + gate + "file_server", "path"},
	} {
		config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte("http://a {\n"+c.site+"\n}"), map[string]any{"filename": "Caddyfile"})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var parsed struct {
			Apps struct {
				HTTP struct{ Servers map[string]*caddyhttp.Server }
			}
		}
		if err := json.Unmarshal(config, &parsed); err != nil {
			t.Fatal(err)
		}
		for _, srv := range parsed.Apps.HTTP.Servers {
			if got := inFront(srv); got != c.want {
				t.Errorf("%s: %q, want %q", name, got, c.want)
			}
		}
	}
	if inFront(nil) != "" {
		t.Error("a rule where there is no server")
	}
}
