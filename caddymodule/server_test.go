package caddymodule

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	"github.com/streamguard/streamguard/api"
	"github.com/streamguard/streamguard/caddymodule/storage"
	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/redisstore"
	"github.com/streamguard/streamguard/redisstore/redistest"
)

// server is this process' Caddy, with a site at a port of its own.
type server struct {
	t    *testing.T
	addr string
}

// serve starts Caddy with a Caddyfile in which SITE stands for the address.
func serve(t *testing.T, caddyfile string) *server {
	t.Helper()
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	s := &server{t: t, addr: "127.0.0.1:" + redistest.FreePort(t)}
	if err := s.load(caddyfile); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		caddy.Stop()
		// A test in virtual time may not be given this one's store.
		eventually(t, "an end of all that holds a store", func() bool { return len(storage.InUse()) == 0 })
	})
	return s
}

func (s *server) load(caddyfile string) error {
	s.t.Helper()
	_, port, _ := net.SplitHostPort(s.addr)
	global := "{\nadmin off\npersist_config off\nlog {\nlevel ERROR\n}\ngrace_period 1s\n"
	sites, more := strings.CutPrefix(caddyfile, "{\n") // global options of the test's own
	if !more {
		global += "}\n"
	}
	caddyfile = global + strings.ReplaceAll(sites, "SITE", "http://127.0.0.1:"+port)
	config, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(caddyfile), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		return err
	}
	for _, w := range warnings {
		if !strings.Contains(w.Message, "not formatted") {
			s.t.Errorf("warning: %v", w)
		}
	}
	return caddy.Load(config, true)
}

// call makes a request of user "u" and expects a status.
func (s *server) call(want int, method, path string, fields ...string) (http.Header, string) {
	s.t.Helper()
	r, err := http.NewRequest(method, "http://"+s.addr+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set("X-User-Id", "u")
	for i := 0; i < len(fields); i += 2 {
		if r.Header.Set(fields[i], fields[i+1]); fields[i] == "Host" {
			r.Host = fields[i+1]
		}
	}
	resp := s.send(r)
	defer resp.Body.Close()
	if resp.StatusCode != want {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10)) // it may be without an end
		s.t.Fatalf("%s %s %q: %d, want %d\n%s", method, path, fields, resp.StatusCode, want, body)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp.Header, string(body)
}

// send sends a request. A server that is being replaced may close a connection
// unanswered.
func (s *server) send(r *http.Request) *http.Response {
	s.t.Helper()
	resp, err := http.DefaultTransport.RoundTrip(r)
	for range 3 {
		if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
			resp, err = http.DefaultTransport.RoundTrip(r)
		}
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return resp
}

// reload loads another config, and waits until it answers GET /answered with the status
// that it says.
func (s *server) reload(caddyfile string, answered int) {
	s.t.Helper()
	if err := s.load(caddyfile); err != nil {
		s.t.Fatal(err)
	}
	eventually(s.t, "the new config", func() bool { // the old server may still take a connection
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
		r, err := http.NewRequest("GET", "http://"+s.addr+"/answered", nil)
		if err != nil {
			s.t.Fatal(err)
		}
		resp := s.send(r)
		resp.Body.Close()
		return resp.StatusCode == answered
	})
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
}

// guards is what GET /guards says of user "u".
func (s *server) guards() (answer api.Guards) {
	s.t.Helper()
	_, body := s.call(200, "GET", "/guards")
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		s.t.Fatal(err)
	}
	return answer
}

// eventually polls for what must come about.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	for tick := time.NewTicker(20 * time.Millisecond); !ok(); {
		select {
		case <-tick.C:
		case <-deadline:
			buf := make([]byte, 1<<20)
			t.Fatalf("still waiting for %s\n%s", what, buf[:runtime.Stack(buf, true)])
		}
	}
}

const user = "user {header.X-User-Id}\n"

func TestReloadKeepsGuards(t *testing.T) {
	redis := redistest.Start(t)
	for name, store := range map[string]string{
		"memory":  "store memory reload\n",
		"default": "",
		"redis":   "store redis redis://" + redis.Addr + " {\ntimeout 10s\n}\n",
	} {
		t.Run(name, func(t *testing.T) {
			before := runtime.NumGoroutine()
			site := func(options string) string {
				return "SITE {\nheader >X-Verdict {http.stream_guard.verdict}\nstream_guard {\n" + user + store + options + "\n}\nrespond ok\n}"
			}
			s := serve(t, site("limit 2"))
			s.call(200, "GET", "/v/x/1.ts", sid, `sid="a"`)
			s.call(200, "GET", "/v/x/1.ts", sid, `sid="b"`)
			s.call(429, "GET", "/v/y/1.ts", sid, `sid="c"`)
			held := s.guards().Guards

			// A config that is refused, for this handler's sake or another's.
			for _, bad := range []string{site("limit -1"), site("") + "\nhttp://127.0.0.1:1 {\nstream_guard {\n" + user + store + "}\nreverse_proxy {\nlb_policy nonsense\n}\n}"} {
				if err := s.load(bad); err == nil {
					t.Fatal("the bad config was loaded")
				}
				s.call(429, "GET", "/v/y/1.ts", sid, `sid="c"`)
				s.call(200, "GET", "/v/x/2.ts", sid, `sid="a"`)
			}

			// A changed one.
			if err := s.load(site("limit 3\ninterval 30s")); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the new limit", func() bool { // the old server may still take a connection
				http.DefaultTransport.(*http.Transport).CloseIdleConnections()
				return *s.guards().Limit == 3
			})
			http.DefaultTransport.(*http.Transport).CloseIdleConnections()
			if got := s.guards(); len(got.Guards) != 2 || *got.Limit != 3 || got.Guards[0].GuardID != held[0].GuardID || got.Guards[1].GuardID != held[1].GuardID {
				t.Errorf("after the reload: %+v, before: %+v", got, held)
			}
			if h, _ := s.call(200, "GET", "/v/x/1.ts", sid, `sid="b"`); h.Get("X-Verdict") != "known" {
				t.Errorf("after the reload a viewer is %s: its lease is lost", h.Get("X-Verdict"))
			}
			s.call(200, "GET", "/v/y/1.ts", sid, `sid="c"`)
			s.call(429, "GET", "/v/z/1.ts", sid, `sid="d"`)

			// Stopped: nothing is left running.
			if err := caddy.Stop(); err != nil {
				t.Fatal(err)
			}
			for _, p := range storage.InUse() {
				t.Errorf("the store %s is still open", p.Name)
			}
			http.DefaultTransport.(*http.Transport).CloseIdleConnections()
			eventually(t, "as many goroutines as before", func() bool { return runtime.NumGoroutine() <= before+2 })
		})
	}
}

func TestAnotherStoreIsAnotherCount(t *testing.T) {
	s := serve(t, `
SITE {
	handle_path "/my app/*" {
		stream_guard {
			user {header.X-User-Id}
			limit 1
			store memory one
		}
	}
	handle_path /b/* {
		stream_guard {
			user {header.X-User-Id}
			limit 1
			store memory two
		}
	}
	handle_path /c/* {
		stream_guard {
			user {header.X-User-Id}
			limit 1
			store memory two
		}
	}
	respond ok
}`)
	s.call(200, "GET", "/my%20app/v/x/1.ts", sid, `sid="a"`)
	s.call(200, "GET", "/b/v/x/1.ts", sid, `sid="b"`)
	s.call(429, "GET", "/c/v/y/1.ts", sid, `sid="c"`)
	// The API's links are as the client sees them, whatever handle_path cut off.
	h, _ := s.call(201, "POST", "/my%20app/guards", "X-User-Id", "other")
	if !strings.HasPrefix(h.Get("Location"), "/my%20app/guards/") {
		t.Errorf("Location %q", h.Get("Location"))
	}
	s.call(200, "GET", h.Get("Location"), "X-User-Id", "other")
}

func TestErrorRoutesRestyleARefusal(t *testing.T) {
	s := serve(t, `
SITE {
	stream_guard {
		user {header.X-User-Id}
		limit 0
		playback auto
	}
	respond ok
	handle_errors 429 {
		@api path /v/styled/*
		respond @api "{err.status_code} {err.message} {http.stream_guard.verdict} {http.stream_guard.held}/{http.stream_guard.limit} {http.stream_guard.problem}"
	}
	handle_errors 404 {
		respond "not for us"
	}
}`)
	h, body := s.call(429, "GET", "/v/styled/1.ts")
	if !strings.HasPrefix(body, `429 stream limit reached: 0 of 0 guards held; this plan allows none, so waiting does not help rejected 0/0 {"status":429,`) || h.Get("Ratelimit") != `"guards";r=0` || h.Get("Cache-Control") != "no-store" {
		t.Errorf("%v\n%s", h, body)
	}
	// No error route is for these: the problem document is the answer.
	h, body = s.call(429, "GET", "/v/plain/1.ts")
	if h.Get("Content-Type") != "application/problem+json" || !strings.Contains(body, "REACHED_MAX_GUARDS_COUNT") {
		t.Errorf("%v\n%s", h, body)
	}
	h, body = s.call(401, "GET", "/v/styled/1.ts", "X-User-Id", "")
	if h.Get("Content-Type") != "application/problem+json" || !strings.Contains(body, "MISSING_USER") {
		t.Errorf("%v\n%s", h, body)
	}
}

func TestStandsBehindAuthenticationByItself(t *testing.T) {
	login := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		w.Header().Set("X-User-Id", r.Header.Get("Authorization"))
	}))
	defer login.Close()
	s := serve(t, fmt.Sprintf(`
SITE {
	stream_guard {
		user {header.X-User-Id}
		limit 1
	}
	forward_auth %s {
		uri /
		copy_headers X-User-Id
	}
	respond ok
}`, login.URL))
	s.call(403, "GET", "/v/x/1.ts")
	// The user is who the login says, whatever the client says.
	s.call(200, "GET", "/v/x/1.ts", "Authorization", "alice", "X-User-Id", "bob")
	s.call(429, "GET", "/v/y/1.ts", "Authorization", "alice", "X-User-Id", "carol")
	s.call(200, "GET", "/v/y/1.ts", "Authorization", "bob")
}

// A token in front of a path that is for some users only does not get others
// past what keeps them out.
func TestTokenOpensNoDoors(t *testing.T) {
	site := func(directives string) string {
		return "SITE {\n" + directives + `
	basic_auth /admin/* {
		demo $2a$14$Zkx19XLiW6VYouLHR5NmfOFU0z2GTNmpkT/5qqR7hx4IjWJPDhjvG
	}
	stream_guard {
		user {header.X-User-Id}
		anonymous allow
	}
	respond "{path} {http.stream_guard.guard}"
}`
	}
	id := guard.NewID("u", "").String()
	for _, path := range []string{"/admin/page.html", "/admin/7.m4s", "/admin/master.m3u8"} {
		s := serve(t, site(""))
		// Nobody's token stays where it is, or leads to where there is none.
		if path == "/admin/page.html" {
			if _, body := s.call(200, "GET", "/~"+id+path, "X-User-Id", ""); !strings.HasPrefix(body, "/~"+id) {
				t.Errorf("%s: nobody got %s", path, body)
			}
		} else if h, _ := s.call(307, "GET", "/~"+id+path, "X-User-Id", ""); h.Get("Location") != "../"+path[1:] && h.Get("Location") != "../.."+path {
			t.Errorf("%s: nobody is sent to %s", path, h.Get("Location"))
		}
		s.call(401, "GET", path, "X-User-Id", "")
		s = serve(t, site("stream_guard_token"))
		// Users are let in elsewhere: there their rights do not go by path, or
		// stream_guard_token is in front.
		for _, user := range []string{"", "u"} {
			s.call(401, "GET", "/~"+id+path, "X-User-Id", user)
			s.call(401, "GET", "/%7e"+id+path, "X-User-Id", user)
		}
		if _, body := s.call(200, "GET", "/v/~"+id+"/x/7.m4s"); body != "/v/x/7.m4s "+id {
			t.Errorf("behind stream_guard_token: %s", body)
		}
	}
}

// What is no media has no use for a token, which hides its path from what goes
// by paths in front of the gate.
func TestWhatIsNotCountedIsAnsweredWithoutAToken(t *testing.T) {
	s := serve(t, `
SITE {
	basic_auth /admin/* {
		demo $2a$14$Zkx19XLiW6VYouLHR5NmfOFU0z2GTNmpkT/5qqR7hx4IjWJPDhjvG
	}
	handle_path /p/* {
		stream_guard {
			user {header.X-User-Id}
		}
		respond "p {path}"
	}
	stream_guard {
		user {header.X-User-Id}
	}
	respond {path}
}`)
	token := "/~" + guard.NewID("u", "").String()
	for path, want := range map[string]string{
		token + "/admin/page.html":                      "/admin/page.html",
		token + "/admin/":                               "/admin/",
		"/v" + token + "/x/thumbs%2F/1.jpg?a=%20&b":     "/v/x/thumbs%2F/1.jpg?a=%20&b",
		"/v" + token + token + "/x/" + token + "/1.key": "/v/x//1.key",
		"/v" + token:                    "/v/",
		token:                           "/",
		token + "//other.example/1.jpg": "/other.example/1.jpg", // the same host
		"/p/v" + token + "/x/1.jpg":     "/p/v/x/1.jpg",
	} {
		for _, method := range []string{"GET", "POST"} { // 307 keeps it
			h, _ := s.call(307, method, path)
			at, err := url.Parse("http://" + s.addr + path)
			if err == nil {
				at, err = at.Parse(h.Get("Location"))
			}
			if err != nil || at.Host != s.addr || at.RequestURI() != want {
				t.Errorf("%s: Location %q leads to %v, error %v", path, h.Get("Location"), at, err)
			}
		}
	}
	s.call(401, "GET", "/admin/page.html")
	// A preflight must not be redirected.
	if _, body := s.call(200, "OPTIONS", "/v"+token+"/1.key"); body != "/v/1.key" {
		t.Errorf("OPTIONS: %s", body)
	}
}

// A redirect is to the URL that the client knows, not to what rewrite made of it.
func TestRewrittenManifests(t *testing.T) {
	s := serve(t, `
SITE {
	stream_guard_token
	rewrite /v/x/master.m3u8 /origin/x/index.m3u8?key=secret
	rewrite /channel/news /origin/news/index.m3u8
	stream_guard {
		user {header.X-User-Id}
		playback auto
	}
	respond "# of {uri}"
}`)
	h, _ := s.call(302, "GET", "/v/x/master.m3u8?a=1")
	token, rest, _ := strings.Cut(h.Get("Location"), "/")
	if rest != "master.m3u8?a=1" {
		t.Errorf("Location %q", h.Get("Location"))
	}
	if _, body := s.call(200, "GET", "/v/x/"+token+"/master.m3u8?a=1"); body != "# of /origin/x/index.m3u8?key=secret" {
		t.Errorf("answer %s", body)
	}
	// Under a token this URL would not be one of a manifest: without
	// stream_guard_token it could not be answered, or be redirected for ever.
	if _, body := s.call(200, "GET", "/channel/news"); body != "# of /origin/news/index.m3u8" {
		t.Errorf("answer %s", body)
	}
}

// Ads that a matcher keeps out of the gate are served under a film's token, too,
// and count no more than without.
func TestAdsThatDoNotCount(t *testing.T) {
	s := serve(t, `
SITE {
	stream_guard_token
	@films not path /ads/*
	stream_guard @films {
		user {header.X-User-Id}
		playback auto
		limit 1
	}
	respond <<M3U8
		#EXT-X-DATERANGE:X-ASSET-URI="/ads/1.m3u8",X-ASSET-LIST="/ads/2.json"
		{path} {http.stream_guard.verdict}
		M3U8
}`)
	h, _ := s.call(302, "GET", "/v/x/master.m3u8")
	token, _, _ := strings.Cut(h.Get("Location"), "/")
	s.call(200, "GET", "/v/x/"+token+"/1.ts")
	if _, body := s.call(200, "GET", "/v/x/"+token+"/master.m3u8"); !strings.Contains(body, `X-ASSET-URI="/ads/`+token+`/1.m3u8",X-ASSET-LIST="/ads/`+token+`/2.json"`) {
		t.Errorf("the manifest is\n%s", body)
	}
	for _, ad := range []string{"/ads/" + token + "/1.m3u8", "/ads/" + token + "/2.json", "/ads/1.m3u8", "/ads/2.ts"} {
		plain := strings.Replace(ad, token+"/", "", 1)
		if _, body := s.call(200, "GET", ad); !strings.HasSuffix(body, plain+" {http.stream_guard.verdict}") { // there is none
			t.Errorf("%s: %s", ad, body)
		}
	}
}

// Each of them sends a manifest to a URL of its own, and once only.
func TestTwoGatesInARow(t *testing.T) {
	gate := func(user string) string {
		return "stream_guard {\nuser {header." + user + "}\nplayback auto\nlimit 1\nstore memory " + user + "\n}\n"
	}
	s := serve(t, "SITE {\nroute {\n"+gate("X-User-Id")+gate("X-Account")+"respond \"# {path}\"\n}\n}")
	play := func(want int, user, folder string) {
		account := []string{"X-User-Id", user, "X-Account", "a"}
		h, _ := s.call(302, "GET", folder+"master.m3u8", account...)
		location := h.Get("Location")
		s.call(want, "GET", folder+location, account...)
		token, _, _ := strings.Cut(location, "/")
		if want == 200 {
			if _, body := s.call(200, "GET", folder+token+"/1.ts", account...); body != "# "+folder+"1.ts" {
				t.Errorf("the origin was asked for %s", body)
			}
		}
	}
	play(200, "u", "/v/x/")
	play(429, "u", "/v/y/")
	play(429, "other", "/v/z/") // the first gate has nothing against it
}

// A server that shuts down lets go of who is held back: here of players that ask
// again as soon as they are answered, for as long as they are.
func TestShutdownDoesNotWaitForTheTarpit(t *testing.T) {
	s := serve(t, "SITE {\nstream_guard {\n"+user+"limit 0\n}\nrespond ok\n}")
	var players sync.WaitGroup
	for range 5 {
		players.Go(func() {
			client := &http.Client{Transport: new(http.Transport)}
			defer client.CloseIdleConnections()
			for {
				r, _ := http.NewRequest("GET", "http://"+s.addr+"/v/x/1.ts", nil)
				r.Header.Set("X-User-Id", "u")
				r.Header.Set(sid, `sid="a"`)
				resp, err := client.Do(r)
				if err != nil {
					return
				}
				resp.Body.Close()
			}
		})
	}
	eventually(t, "a request in the tarpit", func() bool {
		buf := make([]byte, 1<<20)
		return strings.Contains(string(buf[:runtime.Stack(buf, true)]), "(*tarpit).hold")
	})
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	players.Wait()
}

func TestRealResponsesPassWhole(t *testing.T) {
	s := serve(t, `
SITE {
	stream_guard {
		user {header.X-User-Id}
		playback auto
	}
	root ../testdata
	encode {
		minimum_length 1
		match header Content-Type *
	}
	file_server
}`)
	h, _ := s.call(302, "GET", "/media/cmaf/master.m3u8")
	token, _, _ := strings.Cut(h.Get("Location"), "/")
	h, body := s.call(200, "GET", "/media/cmaf/"+token+"/master.m3u8")
	if !strings.HasPrefix(body, "#EXTM3U") || h.Get("Cache-Control") != "private" {
		t.Errorf("%v\n%s", h, body)
	}
	h, body = s.call(206, "GET", "/media/byterange/"+token+"/media.mp4", "Range", "bytes=4-7")
	if body != "ftyp" || h.Get("Content-Range") == "" {
		t.Errorf("%v %q", h, body)
	}
	h, body = s.call(200, "HEAD", "/media/byterange/"+token+"/media.mp4")
	if body != "" || h.Get("Content-Length") == "" {
		t.Errorf("HEAD: %v", h)
	}
	if got := s.guards(); len(got.Guards) != 1 || *got.Remaining != 2 {
		t.Errorf("%+v", got)
	}
}

func TestRedisMayComeLater(t *testing.T) {
	addr := "127.0.0.1:" + redistest.FreePort(t)
	s := serve(t, "SITE {\nstream_guard {\n"+user+"limit 1\ninterval 1s\nstore redis redis://"+addr+" {\ntimeout 10s\n}\n}\nrespond ok\n}")
	s.call(200, "GET", "/v/x/1.ts", sid, `sid="a"`)
	s.call(429, "GET", "/v/y/1.ts", sid, `sid="b"`) // counted here meanwhile
	s.call(503, "GET", "/guards")
	redistest.StartOn(t, addr)
	there, err := redisstore.Open(redisstore.Options{Addresses: []string{addr}})
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	// The viewer who was admitted here is known there with the next refresh.
	eventually(t, "a guard in Redis", func() bool {
		s.call(200, "GET", "/v/x/1.ts", sid, `sid="a"`)
		guards, err := there.List(t.Context(), "u")
		return err == nil && len(guards) == 1
	})
	s.call(429, "GET", "/v/z/1.ts", sid, `sid="c"`)
}

func TestConnectionOptionsReachRedis(t *testing.T) {
	redis := redistest.Start(t, "--user", "app", "on", ">s3cret", "~app:*", "+@all", "--user", "default", "off")
	t.Setenv("REDIS_PASSWORD", "s3cret")
	s := serve(t, `
SITE {
	stream_guard {
		user {header.X-User-Id}
		store redis {
			address    `+redis.Addr+`
			username   app
			password   {env.REDIS_PASSWORD}
			db         3
			key_prefix app:
			timeout    10s
			pool_size  2
		}
	}
	respond ok
}`)
	s.call(201, "POST", "/guards")
	if got := len(s.guards().Guards); got != 1 {
		t.Errorf("%d guards, want 1", got)
	}
}
