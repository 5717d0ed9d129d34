package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/streamguard/streamguard/caddymodule/storage"
	"github.com/streamguard/streamguard/connection"
	"github.com/streamguard/streamguard/guard"
)

// Here a playback is over sooner after its connections than in life: tests need not wait
// for it.
func init() { connections = connection.New(connection.After/5, countClosed) }

// hungUp has connections known by a registry of a test's own, and keeps in mind whose
// guards it closes.
type hungUp struct {
	t     *testing.T
	mu    sync.Mutex
	users []string
}

// HangUp implements connection.Closer.
func (h *hungUp) HangUp(_ context.Context, user string, _ guard.ID) (bool, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.users = append(h.users, user)
	return true, nil
}

// Leaves implements connection.Closer.
func (*hungUp) Leaves(guard.ID, time.Duration) {}

// IsBack implements connection.Closer.
func (*hungUp) IsBack(guard.ID) {}

// hangsUp is for a test in which a playback is over so long after its last connection.
func hangsUp(t *testing.T, after time.Duration) *hungUp {
	h := &hungUp{t: t}
	all, of := connections, closerOf
	connections = connection.New(after, nil)
	closerOf = func(*storage.Pooled) connection.Closer { return h }
	t.Cleanup(func() {
		connections, closerOf = all, of
		eventually(t, "the end of all stores", func() bool { return len(storage.InUse()) == 0 }) // an endless answer holds its own for 5 s
	})
	return h
}

// expect says whose guards are closed, and nobody else's by the time that those of
// another viewer are, who leaves later.
func (h *hungUp) expect(s *server, want ...string) {
	h.t.Helper()
	eventually(h.t, "what is closed", func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return len(h.users) >= len(want)
	})
	last := newApp(s, "last")
	last.get("/v/x/1.ts", "/v/x/2.ts")
	last.CloseIdleConnections()
	h.eventually(append(want, "last")...)
}

func (h *hungUp) eventually(want ...string) {
	h.t.Helper()
	var got []string
	eventually(h.t, "what is closed", func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		got = slices.Clone(h.users)
		return slices.Contains(got, want[len(want)-1])
	})
	if slices.Sort(got); !slices.Equal(got, slices.Sorted(slices.Values(want))) {
		h.t.Errorf("closed are the guards of %q, want %q", got, want)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.users = nil
}

// app is a client with connections of its own.
type app struct {
	*http.Transport
	s    *server
	user string
	more http.Header
}

func newApp(s *server, user string, change ...func(*http.Transport)) *app {
	tr := new(http.Transport)
	for _, change := range change {
		change(tr)
	}
	s.t.Cleanup(tr.CloseIdleConnections)
	return &app{Transport: tr, s: s, user: user, more: http.Header{}}
}

// open asks, and returns an answer that can be read or left.
func (p *app) open(path string) *http.Response {
	p.s.t.Helper()
	r, err := http.NewRequest("GET", "http://"+p.s.addr+path, nil)
	if err != nil {
		p.s.t.Fatal(err)
	}
	r.Header = p.more.Clone()
	r.Header.Set("X-User-Id", p.user)
	resp, err := p.RoundTrip(r)
	for range 3 { // a server that is being replaced may close a connection unanswered
		if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
			resp, err = p.RoundTrip(r)
		}
	}
	if err != nil {
		p.s.t.Fatalf("%s of %s: %v", path, p.user, err)
	}
	if resp.StatusCode >= 400 {
		body, _ := io.ReadAll(resp.Body)
		p.s.t.Fatalf("%s of %s: %d\n%s", path, p.user, resp.StatusCode, body)
	}
	return resp
}

func (p *app) get(paths ...string) {
	p.s.t.Helper()
	for _, path := range paths {
		resp := p.open(path)
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			p.s.t.Fatalf("%s of %s: %v", path, p.user, err)
		}
		resp.Body.Close()
	}
}

func overHTTP2(tr *http.Transport) {
	tr.Protocols = new(http.Protocols)
	tr.Protocols.SetUnencryptedHTTP2(true)
}

func withoutKeepAlive(tr *http.Transport) { tr.DisableKeepAlives = true }

const gated = "stream_guard {\n" + user + "reclaim lapsed\nplayback stream\nlimit unlimited\n}\n"

// endless is an origin of films that never end: some say how long they are.
func endless(t *testing.T) string {
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, ".mp4") || r.Header.Get("Range") != "" {
			w.Header().Set("Content-Length", "1000000000")
		}
		for some := make([]byte, 32<<10); ; {
			if _, err := w.Write(some); err != nil {
				return
			}
			if err := http.NewResponseController(w).Flush(); err != nil {
				return
			}
			select {
			case <-r.Context().Done():
				return
			case <-time.After(time.Millisecond):
			}
		}
	}))
	t.Cleanup(func() {
		origin.CloseClientConnections()
		origin.Close()
	})
	return strings.TrimPrefix(origin.URL, "http://")
}

func TestAClosedConnectionIsTheEndOfWhatItCarried(t *testing.T) {
	h := hangsUp(t, 300*time.Millisecond)
	s := serve(t, "{\nservers {\nprotocols h1 h2c\ntimeouts {\nwrite_idle 500ms\n}\n}\n}\nSITE {\n"+gated+`
	@endless path /endless/*
	reverse_proxy @endless `+endless(t)+` {
		flush_interval -1
	}
	@other not path /endless/*
	respond @other media
}`)
	keeps := newApp(s, "keeps its connection")
	keeps.get("/v/x/1.ts", "/v/x/2.ts")

	closes := newApp(s, "closes")
	closes.get("/v/x/index.m3u8", "/v/x/1.ts", "/v/x/2.ts")
	closes.CloseIdleConnections()

	two := newApp(s, "closes one of two")
	two.get("/v/x/1.ts", "/v/x/2.ts")
	one := newApp(s, two.user)
	one.get("/v/x/3.ts", "/v/x/4.ts")
	one.CloseIdleConnections()

	newApp(s, "without keep-alive", withoutKeepAlive).get("/v/x/1.ts", "/v/x/2.ts")
	for range 3 {
		each := newApp(s, "a connection for each")
		each.get("/v/x/1.ts")
		each.CloseIdleConnections()
	}

	channel := newApp(s, "turns a channel off").open("/endless/1.ts")
	io.CopyN(io.Discard, channel.Body, 100<<10)
	channel.Body.Close()

	film := newApp(s, "skips in a film").open("/endless/1.mp4")
	io.CopyN(io.Discard, film.Body, 100<<10)
	film.Body.Close()

	newApp(s, "does not read").open("/endless/2.ts")

	many := newApp(s, "by HTTP/2", overHTTP2)
	many.get("/v/a/1.ts", "/v/b/1.ts", "/v/c/1.ts")
	many.CloseIdleConnections()

	reset := newApp(s, "resets a stream", overHTTP2)
	reset.get("/v/x/1.ts")
	reset.open("/endless/3.ts").Body.Close()

	for name, value := range map[string]string{"X-Forwarded-For": "192.0.2.1", "Forwarded": "for=192.0.2.1", "Via": "1.1 proxy"} {
		proxy := newApp(s, "through a proxy: "+name)
		proxy.more.Set(name, value)
		proxy.get("/v/x/1.ts", "/v/x/2.ts")
		proxy.CloseIdleConnections()
	}
	pool := newApp(s, "one of a pool")
	pool.get("/v/x/1.ts", "/v/x/2.ts")
	pool.user = "another of a pool"
	pool.get("/v/x/1.ts", "/v/x/2.ts")
	pool.CloseIdleConnections()

	h.expect(s, "closes", "turns a channel off", "by HTTP/2", "by HTTP/2", "by HTTP/2")
}

func TestWhatTheServerClosesSaysNothing(t *testing.T) {
	h := hangsUp(t, 300*time.Millisecond)
	site := func(limit int, timeouts string) string {
		return fmt.Sprintf("{\nservers {\nprotocols h1 h2c\n%s}\n}\nSITE {\nstream_guard {\n%sreclaim lapsed\nplayback stream\nlimit %d\n}\nrespond media\n}", timeouts, user, limit)
	}
	s := serve(t, site(99, "timeouts {\nidle 400ms\n}\n"))
	idle := []*app{newApp(s, "idle"), newApp(s, "idle by HTTP/2", overHTTP2)}
	for _, app := range idle {
		app.get("/v/x/1.ts", "/v/x/2.ts")
	}
	h.expect(s)
	if err := s.load(site(100, "")); err != nil {
		t.Fatal(err)
	}
	// A reload closes what is idle, and what is not when it has been answered.
	var viewers []*app
	for i := range 30 {
		viewers = append(viewers, newApp(s, fmt.Sprint("viewer ", i)), newApp(s, fmt.Sprint("viewer by HTTP/2 ", i), overHTTP2))
	}
	for reload := range 3 {
		for _, viewer := range viewers {
			viewer.get("/v/x/1.ts", "/v/x/2.ts")
		}
		if err := s.load(site(101+reload, "")); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "only the new server", func() bool { // the old one may still take a connection
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
		return *s.guards().Limit == 103
	})
	h.expect(s)
	for _, app := range []*app{newApp(s, "after it"), newApp(s, "after it by HTTP/2", overHTTP2)} {
		app.get("/v/x/1.ts", "/v/x/2.ts")
		app.CloseIdleConnections()
	}
	h.eventually("after it", "after it by HTTP/2")
	// So does a stop.
	for _, viewer := range viewers {
		viewer.get("/v/x/1.ts", "/v/x/2.ts")
	}
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := s.load(site(104, "")); err != nil {
		t.Fatal(err)
	}
	h.expect(s)
}

func TestATrustedProxyClosesNothing(t *testing.T) {
	h := hangsUp(t, 100*time.Millisecond)
	s := serve(t, "{\nservers {\ntrusted_proxies static 127.0.0.0/8\n}\n}\nSITE {\n"+gated+"respond media\n}")
	proxy := newApp(s, "behind a proxy")
	proxy.get("/v/x/1.ts", "/v/x/2.ts")
	proxy.CloseIdleConnections()
	h.last()
}

// last expects that nobody's guard is closed before that of a connection that is
// closed now.
func (h *hungUp) last() {
	server := connections.Serve()
	here, there := net.Pipe()
	defer here.Close()
	conn := connection.From(server.Accept(h.t.Context(), there, 0))
	p := &connection.Playback{Closer: h, ID: guard.NewID("last", ""), User: "last"}
	for range 2 {
		server.State(there, http.StateActive)
		connections.Carry(conn, p, false)
		connections.Answered(conn, p, false, false)
		server.State(there, http.StateIdle)
	}
	server.State(there, http.StateClosed)
	h.eventually("last")
}

// A film without a length is left, and a part of it is being sent still.
func TestAPartOfAFilmKeepsItsSlot(t *testing.T) {
	h := hangsUp(t, 300*time.Millisecond)
	s := serve(t, "SITE {\n"+gated+"reverse_proxy /film/* "+endless(t)+"\nrespond media\n}")
	whole, part := newApp(s, "u"), newApp(s, "u")
	part.more.Set("Range", "bytes=100-")
	first := whole.open("/film/f.mkv")
	second := part.open("/film/f.mkv")
	first.Body.Close()
	h.expect(s)
	second.Body.Close()
}

// A gate that heeds no closings knows of a request that another one of its store would
// have to know of.
func TestAGateThatHeedsNoClosings(t *testing.T) {
	h := hangsUp(t, 500*time.Millisecond)
	off := strings.Replace(gated, "reclaim lapsed", "reclaim off", 1)
	s := serve(t, "SITE {\nhandle /off/* {\nuri strip_prefix /off\n"+off+"}\nhandle {\n"+gated+"}\nrespond media\n}")
	p, other := newApp(s, "u"), newApp(s, "u")
	p.get("/v/x/1.ts", "/v/x/2.ts")
	p.CloseIdleConnections()
	s.isLeft("u", h)
	other.get("/off/v/x/3.ts")
	h.expect(s)
}

// isLeft waits until it is noticed that a user's one playback was left.
func (s *server) isLeft(user string, closer connection.Closer) {
	s.t.Helper()
	id, err := guard.ParseID(s.guardsOf(user)[0].GuardID)
	if err != nil {
		s.t.Fatal(err)
	}
	eventually(s.t, "its end is due", func() bool { return connections.Due(closer, []guard.Guard{{ID: id}}) > 0 })
}

// A page tells of a paused player by calls of its own.
func TestACallOfTheAPIIsARequestOfItsPlayback(t *testing.T) {
	h := hangsUp(t, 500*time.Millisecond)
	s := serve(t, "SITE {\n"+gated+"respond media\n}")
	id := guard.NewID("paused", "")
	media, page := newApp(s, "paused"), newApp(s, "paused")
	media.get("/~"+id.String()+"/v/x/1.ts", "/~"+id.String()+"/v/x/2.ts")
	media.CloseIdleConnections()
	page.get("/guards/" + id.String())
	page.call("PATCH", "/guards/"+id.String())
	h.expect(s)
	page.call("PATCH", "/guards/"+id.String())
	page.CloseIdleConnections()
	h.eventually("paused")
}

func (p *app) call(method, path string) {
	p.s.t.Helper()
	r, err := http.NewRequest(method, "http://"+p.s.addr+path, nil)
	if err != nil {
		p.s.t.Fatal(err)
	}
	r.Header.Set("X-User-Id", p.user)
	resp, err := p.RoundTrip(r)
	if err != nil {
		p.s.t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode >= 300 {
		p.s.t.Fatalf("%s %s: %d %v\n%s", method, path, resp.StatusCode, err, body)
	}
}

// Every player cuts segments short, to go on with another rendition, and comes back.
// Under a token that is told from a film in one file, in which players skip.
func TestUnderATokenWhatIsCutShortIsASegment(t *testing.T) {
	h := hangsUp(t, 300*time.Millisecond)
	s := serve(t, "SITE {\nstream_guard {\n"+user+"reclaim lapsed\n}\nreverse_proxy /v/film/* "+endless(t)+"\n@other not path /v/film/* /v/~*\nrespond @other media\n}")
	leave := func(user, path string) {
		resp := newApp(s, user).open(path)
		io.CopyN(io.Discard, resp.Body, 1<<20)
		resp.Body.Close()
	}
	leave("skips", "/v/film/1.mp4")
	leave("leaves", "/v/~"+guard.NewID("leaves", "").String()+"/film/1.mp4")
	h.expect(s, "leaves")
}

// However many gates a server has, and whatever is loaded after it.
func TestAServerHasOneHook(t *testing.T) {
	hangsUp(t, time.Hour)
	site := func(gates int, options string) string {
		var b strings.Builder
		b.WriteString("SITE {\n")
		for i := range gates {
			fmt.Fprintf(&b, "handle_path /%d/* {\nstream_guard {\n%sstore memory hooks\n%s\n}\n}\n", i, user, options)
		}
		return b.String() + "respond media\n}"
	}
	s := serve(t, site(3, "reclaim off"))
	hooks := func(want int) *caddyhttp.Server {
		t.Helper()
		app, err := caddy.ActiveContext().App("http")
		if err != nil {
			t.Fatal(err)
		}
		srv := app.(*caddyhttp.App).Servers["srv0"]
		for _, name := range []string{"connStateFuncs", "connContextFuncs"} {
			if n := reflect.ValueOf(srv).Elem().FieldByName(name).Len(); n != want {
				t.Errorf("the server has %d %s, want %d", n, name, want)
			}
		}
		return srv
	}
	hooks(1)
	for _, gates := range []int{1, 2, 300} {
		if err := s.load(site(gates, "reclaim lapsed")); err != nil {
			t.Fatal(err)
		}
		hook(hooks(1)) // as a gate that is provisioned later would
		hooks(1)
	}
}

// With guards: what is over keeps its slot from nobody, and who comes back has it
// back.
func TestTheSlotOfAClosedPlaybackIsFree(t *testing.T) {
	all := connections
	connections = connection.New(300*time.Millisecond, countClosed)
	t.Cleanup(func() { connections = all })
	s := serve(t, "SITE {\nstream_guard {\n"+user+"playback stream\nlimit 2\n}\nrespond media\n}")
	left, stays := newApp(s, "u"), newApp(s, "u")
	left.get("/v/left/1.ts", "/v/left/2.ts")
	stays.get("/v/stays/1.ts", "/v/stays/2.ts")
	s.call(429, "GET", "/v/next/1.ts")
	left.CloseIdleConnections()
	states := func() (states []string) {
		for _, g := range s.guards().Guards {
			states = append(states, g.StreamID+" "+string(g.State))
		}
		return states
	}
	eventually(t, "the guard is closed", func() bool { return slices.Contains(states(), "v/left closed") })
	if got := s.guards(); *got.Remaining != 1 {
		t.Errorf("%+v", got)
	}
	left.get("/v/left/3.ts", "/v/left/4.ts")
	if got := states(); !slices.Equal(got, []string{"v/left active", "v/stays active"}) {
		t.Errorf("when it is back: %q", got)
	}
	// It closes its connections when it is idle: from now on that says nothing.
	stays.CloseIdleConnections()
	left.CloseIdleConnections()
	eventually(t, "the other's guard is closed", func() bool { return slices.Contains(states(), "v/stays closed") })
	s.call(200, "GET", "/v/next/1.ts")
	if got := states(); !slices.Equal(got, []string{"v/left active", "v/next active"}) {
		t.Errorf("when the next has started: %q", got)
	}
	s.call(429, "GET", "/v/another/1.ts")
}

// leaves has a television play and go, and waits until that is noticed.
func (s *server) leaves() (id string) {
	s.t.Helper()
	tv := newApp(s, "u")
	tv.get("/v/tv/1.ts", "/v/tv/2.ts")
	id = s.guards().Guards[0].GuardID
	tv.CloseIdleConnections()
	s.isLeft("u", closerOf(storage.InUse()[0]))
	return id
}

// A phone that starts while the television has just been switched off waits until that
// is certain.
func TestAStartWaitsForAnEnding(t *testing.T) {
	all := connections
	connections = connection.New(time.Second, countClosed)
	t.Cleanup(func() { connections = all })
	s := serve(t, "SITE {\nstream_guard {\n"+user+"playback stream\nlimit 1\n}\nrespond media\n}")
	s.leaves()
	s.call(429, "HEAD", "/v/phone/1.ts", "User-Agent", "phone") // which takes nothing, and is not worth waiting
	s.call(200, "GET", "/v/phone/1.ts", "User-Agent", "phone")
	s.call(429, "GET", "/v/tv/3.ts")
}

// It waits no longer when the television says goodbye.
func TestAStartWaitsForAGoodbyeNoLonger(t *testing.T) {
	all, longest := connections, connection.Longest
	connections, connection.Longest = connection.New(time.Hour, countClosed), 2*time.Hour
	t.Cleanup(func() { connections, connection.Longest = all, longest })
	s := serve(t, "SITE {\nstream_guard {\n"+user+"playback stream\nlimit 1\n}\nrespond media\n}")
	id := s.leaves()
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		s.call(200, "GET", "/v/phone/1.ts", "User-Agent", "phone")
	}()
	eventually(t, "the phone waits", func() bool { return waits() == 1 })
	s.call(204, "DELETE", "/guards/"+id)
	<-answered
}

// A box with one place changes channels within a second. Its channels are endless.
func TestAChannelChangeWaitsForNothing(t *testing.T) {
	all := connections
	connections = connection.New(connection.After, countClosed) // as in life: an answer is known to last before it
	t.Cleanup(func() { connections = all })
	s := serve(t, "SITE {\nstream_guard {\n"+user+"limit 1\n}\nreverse_proxy "+endless(t)+"\n}")
	box := func() *app { return newApp(s, "u") }
	for channel := range 5 {
		resp := box().open(fmt.Sprintf("/live/u/p/%d.ts", channel))
		io.CopyN(io.Discard, resp.Body, 300<<10)
		resp.Body.Close()
	}
	// A second box is refused.
	resp := box().open("/live/u/p/9.ts")
	s.call(429, "GET", "/live/u/p/7.ts", "User-Agent", "another box")
	resp.Body.Close()
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the store is given back when the guard is closed", func() bool { return len(storage.InUse()) == 0 })
}
