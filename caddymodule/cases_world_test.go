package caddymodule

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/streamguard/streamguard/caddymodule/storage"
	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/memstore"
	"github.com/streamguard/streamguard/redisstore"
	"github.com/streamguard/streamguard/redisstore/redistest"
)

// world is some Caddys of a Caddyfile in front of an origin, without a network
// and in virtual time, and the players that ask them. They share one store: in
// memory, or a Redis whose clock is that of the world.
type world struct {
	t     *testing.T
	store guard.Store
	nodes []map[string]*caddyhttp.Server // by port
	log   syncBuffer
	calls atomic.Int64 // of the store

	mu      sync.Mutex
	origin  map[string]string // what it answers, by URL or path
	asked   []*http.Request   // what it was asked for
	players map[string]*player
	news    []func(guard.News) // of the nodes
	several bool               // nodes
	lost    bool               // news are not told
	last    *reply             // of a step
	id      string             // of the last guard that the API told of
}

// theWorld is the one of the test that runs.
var theWorld *world

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func (*syncBuffer) Close() error { return nil }

// gateSite is a Caddyfile of one site with a gate of these options, limit 1 if
// they do not say otherwise, and directives around it.
func gateSite(options, directives string) string {
	if !strings.Contains(options, "limit ") {
		options = "limit 1\n" + options
	}
	return "http://:80 {\nstream_guard_token\nstream_guard {\nuser {header.X-User-Id}\n" + options + "\nstore test.shared\n}\n" + directives + "\nreverse_proxy origin:80 {\ntransport test\n}\n}"
}

// onBothStores runs a test on a memory store and on a Redis.
func onBothStores(t *testing.T, test func(t *testing.T, in func(t *testing.T, nodes int, caddyfile string, test func(*world)))) {
	t.Helper()
	t.Run("memory", func(t *testing.T) {
		test(t, func(t *testing.T, nodes int, caddyfile string, test func(*world)) {
			t.Helper()
			synctest.Test(t, func(t *testing.T) {
				s := memstore.New()
				defer s.Close()
				run(t, s, nodes, caddyfile, test)
			})
		})
	})
	t.Run("redis", func(t *testing.T) {
		b := newBridge(t)
		test(t, func(t *testing.T, nodes int, caddyfile string, test func(*world)) {
			t.Helper()
			synctest.Test(t, func(t *testing.T) {
				b.prefix = t.Name() + "|" + strconv.FormatInt(b.runs.Add(1), 10) + "|"
				run(t, b, nodes, caddyfile, test)
			})
		})
	})
}

// trace tells of what the store was asked, where a test is to be understood.
func (w *world) trace(format string, args ...any) {
	if tracing {
		fmt.Printf("%v "+format+"\n", append([]any{time.Now().Format("05.000")}, args...)...)
	}
}

var tracing = os.Getenv("TRACE") != ""

func newMemory(t *testing.T) *memstore.Store {
	s := memstore.New()
	t.Cleanup(func() { s.Close() })
	return s
}

func run(t *testing.T, store guard.Store, nodes int, caddyfile string, test func(*world)) {
	t.Helper()
	w := &world{t: t, store: store, origin: make(map[string]string), players: make(map[string]*player)}
	w.several = nodes > 1
	theWorld = w
	for n := range nodes {
		defer w.provision(strings.ReplaceAll(caddyfile, "store test.shared", fmt.Sprintf("store test.shared %d", n)))()
	}
	test(w)
}

// provision adds a Caddy to the world, and returns what takes it away.
func (w *world) provision(config string) (stop func()) {
	w.t.Helper()
	sites, more := strings.CutPrefix(config, "{\n") // global options of the test's own
	config = "{\nadmin off\npersist_config off\nauto_https off\nlog {\noutput test\nformat json\n}\n"
	if !more {
		config += "}\n"
	}
	config += sites
	adapted, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(config), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		w.t.Fatalf("%v\n%s", err, config)
	}
	var cfg caddy.Config
	if err := json.Unmarshal(adapted, &cfg); err != nil {
		w.t.Fatal(err)
	}
	app := cfg.AppsRaw["http"]
	cfg.AppsRaw = nil
	parent, err := caddy.ProvisionContext(&cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := caddy.NewContext(parent)
	loaded, err := ctx.LoadModuleByID("http", app)
	if err != nil {
		w.t.Fatal(err)
	}
	servers := make(map[string]*caddyhttp.Server)
	for _, s := range loaded.(*caddyhttp.App).Servers {
		for _, listen := range s.Listen {
			servers[listen[strings.LastIndexByte(listen, ':')+1:]] = s
		}
	}
	w.nodes = append(w.nodes, servers)
	return cancel
}

// player is a client with a playback: it follows redirects, and relative URLs go
// by where its last manifest came from.
type player struct {
	user, address, agent string
	base                 *url.URL
	named                []string // the URLs in its last manifest
	variants             []string // and in its last master playlist, whose
	master               *url.URL // this is
}

// player returns the one of a name like "tv", "ann/tv" for another user, "tv#2"
// for an equal one, "tv@1" for the same at another node.
func (w *world) player(name string) *player {
	w.mu.Lock()
	defer w.mu.Unlock()
	who, _, _ := strings.Cut(name, "@")
	p := w.players[who]
	if p == nil {
		user, client, other := strings.Cut(who, "/")
		if !other {
			user, client = "u", who
		}
		client, _, _ = strings.Cut(client, "#")
		sum := fnv.New32a()
		sum.Write([]byte(client))
		n := sum.Sum32()
		p = &player{user: user, agent: client, address: fmt.Sprintf("10.%d.%d.%d", n>>16&255, n>>8&255, n&255), base: &url.URL{Scheme: "http", Host: "video.example", Path: "/"}}
		w.players[who] = p
	}
	return p
}

// nodeOf is where a player of such a name asks.
func nodeOf(name string) (node int) {
	if _, at, ok := strings.Cut(name, "@"); ok {
		node, _ = strconv.Atoi(at)
	}
	return node
}

// reply is the last answer to a request and to where it was sent on.
type reply struct {
	*httptest.ResponseRecorder
	at   *url.URL
	took time.Duration
	hops int
}

// code is the errorCode of a problem.
func (r *reply) code() string {
	var p struct{ ErrorCode string }
	json.Unmarshal(r.Body.Bytes(), &p)
	return p.ErrorCode
}

// guard is the id of the guard in an answer of the API.
func (r *reply) guard() string {
	var g struct{ GuardID string }
	json.Unmarshal(r.Body.Bytes(), &g)
	return g.GuardID
}

// known puts the id of the guard that the API told last in the place of $id.
func (w *world) known(ref string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.ReplaceAll(ref, "$id", w.id)
}

// get is send with a method without a body.
func (w *world) get(ctx context.Context, who, method, ref string, follow bool, fields ...string) *reply {
	return w.send(ctx, who, method, ref, "", follow, fields...)
}

// send sends a request, with fields as "Name: value", and follows where it is sent.
func (w *world) send(ctx context.Context, who, method, ref, body string, follow bool, fields ...string) *reply {
	p := w.player(who)
	w.mu.Lock()
	was := *p
	w.mu.Unlock()
	at, err := was.base.Parse(ref)
	if name, ok := strings.CutPrefix(ref, "#"); ok { // what the manifest names, or with ## the master playlist
		base, named := was.base, was.named
		if number, master := strings.CutPrefix(name, "#"); master {
			name, base, named = number, was.master, was.variants
		}
		n, _ := strconv.Atoi(name)
		if n < 1 || n > len(named) {
			w.t.Errorf("%s has no %s", who, ref)
			return &reply{ResponseRecorder: httptest.NewRecorder()}
		}
		at, err = base.Parse(named[n-1])
	}
	if err != nil {
		w.t.Error(err)
		return &reply{ResponseRecorder: httptest.NewRecorder()}
	}
	start := time.Now()
	for hops := 0; ; hops++ {
		r := httptest.NewRequestWithContext(ctx, method, at.String(), strings.NewReader(body))
		if body != "" {
			r.Header.Set("Content-Type", "application/json")
		}
		r.RemoteAddr = p.address + ":4711"
		r.Header.Set("User-Agent", p.agent)
		if p.user != "nobody" {
			r.Header.Set("X-User-Id", p.user)
		}
		for _, field := range fields {
			name, value, _ := strings.Cut(field, ": ")
			if strings.EqualFold(name, "Host") {
				r.Host = value
				continue
			}
			r.Header.Set(name, value)
		}
		resp := &reply{httptest.NewRecorder(), at, 0, hops}
		time.Sleep(time.Millisecond) // no request comes in no time
		w.trace("  %s asks %s", who, at)
		server := w.nodes[nodeOf(who)][cmp.Or(at.Port(), "80")]
		if server == nil {
			w.t.Errorf("nobody listens at %s", at)
			return resp
		}
		func() {
			defer func() {
				if r := recover(); r == http.ErrAbortHandler { // as the server has it
					resp.Code = 0
				} else if r != nil {
					panic(r)
				}
			}()
			server.ServeHTTP(resp.ResponseRecorder, r)
		}()
		w.trace("  %s: %d %s", who, resp.Code, resp.code())
		location := resp.Header().Get("Location")
		if follow && resp.Code >= 300 && resp.Code < 400 && location != "" {
			next, err := at.Parse(location)
			if err != nil || hops == 10 {
				w.t.Errorf("%s: redirected %d times, at last to %q: %v", ref, hops, location, err)
				return resp
			}
			if next.Host != at.Host { // a CDN
				resp.took = time.Since(start)
				return resp
			}
			at = next
			continue
		}
		if resp.Code == 200 && method == "GET" {
			w.mu.Lock()
			p.read(at, resp.Header(), resp.Body.String())
			w.mu.Unlock()
		}
		resp.took = time.Since(start)
		return resp
	}
}

// read has a player go by a manifest.
func (p *player) read(at *url.URL, header http.Header, body string) {
	switch strings.ToLower(path.Ext(at.Path)) {
	case ".m3u8", ".mpd", ".m3u":
	default:
		if !isManifest(header) {
			return
		}
	}
	p.base, p.named = at, nil
	for line := range strings.Lines(body) {
		if line = strings.Trim(line, "\ufeff \r\n"); line != "" && line[0] != '#' {
			p.named = append(p.named, line)
		}
	}
	if strings.Contains(body, "#EXT-X-STREAM-INF") {
		p.master, p.variants = p.base, p.named
	}
}

// play goes through steps, one a line:
//
//	tv [HEAD] /v/x/m.m3u8 [sid=a] [Name=value] -> 200 [ERROR_CODE] [within 11s]
//	wait 10s
//	holds 1 [stream]         the guards of user u, and where the last is
//	logged <text>            a warning or more has it
//	silent <text>            nothing that was logged has it
//	revoke                   all guards of user u
//	answer /path <what>      what the origin answers from now on
//	asked /path              what the origin was asked for last
//	got <Name>: <value>      what is in the last answer, or "-" for nothing
//	body <text>              is in the last answer's body,
//	bare <text>              is not
//	flush                    the store has lost everything
//	lose                     nodes hear of nothing from now on
func (w *world) play(steps string) {
	w.t.Helper()
	for step := range strings.Lines(steps) {
		if step = strings.TrimSpace(step); step != "" && !strings.HasPrefix(step, "//") {
			w.step(step)
		}
	}
}

func (w *world) step(step string) {
	w.t.Helper()
	verb, rest, _ := strings.Cut(step, " ")
	switch verb {
	case "wait":
		d, err := time.ParseDuration(rest)
		if err != nil {
			w.t.Fatal(err)
		}
		time.Sleep(d)
	case "holds":
		number, stream, _ := strings.Cut(rest, " ")
		w.holds(number, stream)
	case "logged":
		if !strings.Contains(w.log.String(), rest) {
			w.t.Errorf("the log does not have %q:\n%s", rest, w.log.String())
		}
	case "silent":
		if strings.Contains(w.log.String(), rest) {
			w.t.Errorf("the log has %q:\n%s", rest, w.log.String())
		}
	case "revoke":
		for _, g := range w.guards("u") {
			if found, err := storage.InUse()[0].Keeper.Revoke(context.Background(), "u", g.ID, guard.Policy{Interval: time.Minute, TTL: 90 * time.Second}); err != nil || !found {
				w.t.Errorf("revoked %v, %v", found, err)
			}
		}
	case "answer":
		url, what, _ := strings.Cut(rest, " ")
		w.answers(map[string]string{url: what})
	case "asked":
		if got := w.lastAsked().URL.RequestURI(); got != rest {
			w.t.Errorf("the origin was asked for %s, want %s", got, rest)
		}
	case "got":
		name, want, _ := strings.Cut(w.known(rest), ": ")
		if got := strings.Join(w.last.Header()[http.CanonicalHeaderKey(name)], "; "); cmp.Or(got, "-") != want {
			w.t.Errorf("%s is %q, want %q", name, got, want)
		}
	case "body", "bare":
		if strings.Contains(w.last.Body.String(), w.known(rest)) != (verb == "body") {
			w.t.Errorf("%s %s, and it is\n%s", verb, rest, w.last.Body)
		}
	case "flush":
		w.flush()
	case "lose":
		w.mu.Lock()
		w.lost = true
		w.mu.Unlock()
	default:
		w.request(step)
	}
}

// flush has the store lose all that it knows.
func (w *world) flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if b, ok := w.store.(*bridge); ok {
		b.prefix += "again|"
		return
	}
	s := memstore.New()
	w.t.Cleanup(func() { s.Close() })
	w.store.(*memstore.Store).Close()
	w.store = s
}

// request is one step of a player.
func (w *world) request(step string) {
	w.t.Helper()
	ask, want, ok := strings.Cut(step, " -> ")
	words, wants := strings.Fields(ask), strings.Fields(want)
	if !ok || len(words) < 2 || len(wants) == 0 {
		w.t.Fatalf("%q is no step", step)
	}
	who, method := words[0], "GET"
	words = words[1:]
	if strings.ToUpper(words[0]) == words[0] && !strings.ContainsAny(words[0], "/#.") {
		method, words = words[0], words[1:]
	}
	var fields []string
	body := ""
	for _, word := range words[1:] {
		name, value, _ := strings.Cut(word, "=")
		if name == "body" {
			body = value
			continue
		}
		if name == "sid" {
			name, value = "CMCD-Session", `sid="`+value+`"`
		}
		fields = append(fields, name+": "+value)
	}
	status, err := strconv.Atoi(wants[0])
	if err != nil {
		w.t.Fatalf("%q: %v", step, err)
	}
	code, within := "", 2*time.Second
	for i := 1; i < len(wants); i++ {
		if wants[i] == "within" && i+1 < len(wants) {
			i++
			within, err = time.ParseDuration(wants[i])
			if err != nil {
				w.t.Fatal(err)
			}
			continue
		}
		code = wants[i]
	}
	got := w.send(context.Background(), who, method, w.known(words[0]), body, status < 300 || status >= 400, fields...)
	w.mu.Lock()
	w.last = got
	if id := got.guard(); id != "" {
		w.id = id
	}
	w.mu.Unlock()
	switch {
	case got.Code != status || code != "" && got.code() != code:
		w.t.Errorf("%s: %d %s at %s\n%s", step, got.Code, got.code(), got.at, got.Body)
	case got.took > within:
		w.t.Errorf("%s: took %v", step, got.took)
	}
}

func (w *world) guards(user string) []guard.Guard {
	w.t.Helper()
	guards, err := counted{w}.List(context.Background(), user)
	if err != nil {
		w.t.Fatal(err)
	}
	return guards
}

func (w *world) holds(number, stream string) {
	w.t.Helper()
	guards := w.guards("u")
	if strconv.Itoa(len(guards)) != number || stream != "" && guards[len(guards)-1].Stream != stream {
		w.t.Errorf("holds %d, want %s on %q: %+v", len(guards), number, stream, guards)
	}
}

// together makes steps at the same time.
func (w *world) together(steps ...string) {
	w.t.Helper()
	var all sync.WaitGroup
	for _, step := range steps {
		all.Go(func() { w.step(step) })
	}
	all.Wait()
}

// answers has the origin answer so, by path or by URL: with a body, or with a
// status (of a redirect: and where to), or "down", after "3s " late.
func (w *world) answers(what map[string]string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	maps.Copy(w.origin, what)
}

// lastAsked is what the origin was asked for last.
func (w *world) lastAsked() *http.Request {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.asked) == 0 {
		return &http.Request{URL: new(url.URL)}
	}
	return w.asked[len(w.asked)-1]
}

// serve is the origin. What it does not know it makes up: a film, or where the
// path has "live" in it a channel.
func (w *world) serve(r *http.Request) (*http.Response, error) {
	w.mu.Lock()
	w.asked = append(w.asked, r.Clone(context.Background()))
	what, known := w.origin[r.URL.RequestURI()]
	if !known {
		what, known = w.origin[r.URL.Path]
	}
	w.mu.Unlock()
	answer := httptest.NewRecorder()
	if delay, rest, ok := strings.Cut(what, " "); ok || known {
		if d, err := time.ParseDuration(delay); err == nil && d > 0 {
			select {
			case <-time.After(d):
			case <-r.Context().Done():
				return nil, r.Context().Err()
			}
			what = rest
			known = rest != ""
		}
	}
	if fields, body, ok := strings.Cut(what, "\n\n"); ok && !strings.HasPrefix(what, "#") && !strings.HasPrefix(what, "<") {
		for field := range strings.SplitSeq(fields, "\n") {
			name, value, _ := strings.Cut(field, ": ")
			answer.Header().Add(name, value)
		}
		what = body
	}
	status, rest, _ := strings.Cut(what, " ")
	code, err := strconv.Atoi(status)
	live := strings.Contains(r.URL.Path, "live")
	switch ext := strings.ToLower(path.Ext(r.URL.Path)); {
	case what == "down":
		return nil, errors.New("connection refused")
	case err == nil && code >= 100:
		if code >= 300 && code < 400 {
			answer.Header().Set("Location", rest)
		}
		answer.WriteHeader(code)
		if code != http.StatusNotModified {
			fmt.Fprint(answer, http.StatusText(code))
		}
	case known:
		if strings.HasPrefix(what, "{") {
			answer.Header().Set("Content-Type", "application/json")
		}
		fmt.Fprint(answer, what)
	case strings.HasPrefix(path.Base(r.URL.Path), "master."):
		fmt.Fprint(answer, "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1000000\nv.m3u8\n")
	case ext == ".m3u8" && live:
		fmt.Fprint(answer, "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n7.ts\n#EXTINF:4,\n8.ts\n")
	case ext == ".m3u8":
		fmt.Fprint(answer, "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXT-X-PLAYLIST-TYPE:VOD\n#EXTINF:4,\n1.ts\n#EXTINF:4,\n2.ts\n#EXT-X-ENDLIST\n")
	case ext == ".mpd":
		kind := `type="static"`
		if live {
			kind = `type="dynamic" minimumUpdatePeriod="PT4S"`
		}
		fmt.Fprintf(answer, `<?xml version="1.0"?><MPD %s><Period><AdaptationSet><SegmentTemplate media="$Number$.m4s" duration="4"/><Representation id="v"/></AdaptationSet></Period></MPD>`, kind)
	default:
		fmt.Fprint(answer, "media")
	}
	return answer.Result(), nil
}

// The modules that a world's Caddyfile has besides Caddy's. The store's is not
// in the namespace that errors list.
func init() {
	caddy.RegisterModule(sharedStore{})
	caddy.RegisterModule(testTransport{})
	caddy.RegisterModule(testLog{})
}

// testTransport leads to the origin, or to a site of the same Caddy at a port.
type testTransport struct{}

func (testTransport) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.reverse_proxy.transport.test", New: func() caddy.Module { return new(testTransport) }}
}

func (*testTransport) UnmarshalCaddyfile(d *caddyfile.Dispenser) error { return nil }

func (*testTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	w := theWorld
	if r.URL.Hostname() == "origin" {
		return w.serve(r)
	}
	in := httptest.NewRequestWithContext(r.Context(), r.Method, r.URL.RequestURI(), r.Body)
	in.Header, in.Host, in.RemoteAddr = r.Header.Clone(), r.Host, "127.0.0.1:1"
	answer := httptest.NewRecorder()
	for _, node := range w.nodes {
		if server := node[r.URL.Port()]; server != nil {
			server.ServeHTTP(answer, in)
			return answer.Result(), nil
		}
	}
	return nil, fmt.Errorf("nobody listens at %s", r.URL)
}

type testLog struct{}

func (testLog) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "caddy.logging.writers.test", New: func() caddy.Module { return new(testLog) }}
}

func (*testLog) UnmarshalCaddyfile(d *caddyfile.Dispenser) error { return nil }
func (*testLog) String() string                                  { return "the test's" }
func (*testLog) WriterKey() string                               { return fmt.Sprintf("%p", theWorld) }
func (*testLog) OpenWriter() (io.WriteCloser, error)             { return &theWorld.log, nil }

// sharedStore is the world's store, as a node sees it.
type sharedStore struct{ Node string }

func (sharedStore) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "stream_guard.stores.test.shared", New: func() caddy.Module { return new(sharedStore) }}
}

func (s *sharedStore) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	d.Args(&s.Node)
	return nil
}

func (s *sharedStore) Key() any { return fmt.Sprintf("%p %s", theWorld, s.Node) }

func (*sharedStore) String() string { return "shared" }

func (s *sharedStore) Open(func(string, bool)) (guard.Store, error) {
	if _, memory := theWorld.store.(*memstore.Store); memory && !theWorld.several {
		return counted{theWorld}, nil
	}
	return telling{counted{theWorld}}, nil
}

// counted is the world's store, whose calls are counted.
type counted struct{ world *world }

func (c counted) there() guard.Store {
	c.world.mu.Lock()
	defer c.world.mu.Unlock()
	return c.world.store
}

func (c counted) Acquire(ctx context.Context, claim guard.Claim, p guard.Policy) (guard.Verdict, error) {
	c.world.calls.Add(1)
	v, err := c.there().Acquire(ctx, claim, p)
	c.world.trace("%v %d stream %q anew %v named %v nameless %v waited %v: %v held %d replaced %d doubted %d answered %v lately %v in %v", claim.ID.String()[:4], claim.Intent, claim.Stream, claim.Anew, claim.Named, claim.Nameless, claim.Waited, v.Outcome, v.Held, len(v.Replaced), len(v.Doubted), v.Answered, v.Lately, v.FreeIn)
	return v, err
}

func (c counted) Refresh(ctx context.Context, user string, id guard.ID, p guard.Policy) (guard.Verdict, error) {
	c.world.calls.Add(1)
	return c.there().Refresh(ctx, user, id, p)
}

func (c counted) CloseGuard(ctx context.Context, user string, id guard.ID) (bool, error) {
	c.world.calls.Add(1)
	return c.there().CloseGuard(ctx, user, id)
}

func (c counted) Undo(ctx context.Context, user string, id guard.ID, replaced []guard.ID) (bool, error) {
	c.world.calls.Add(1)
	return c.there().Undo(ctx, user, id, replaced)
}

func (c counted) Release(ctx context.Context, user string, id guard.ID, p guard.Policy) (bool, error) {
	return c.there().Release(ctx, user, id, p)
}

func (c counted) Revoke(ctx context.Context, user string, id guard.ID, p guard.Policy) (bool, error) {
	return c.there().Revoke(ctx, user, id, p)
}

func (c counted) List(ctx context.Context, user string) ([]guard.Guard, error) {
	return c.there().List(ctx, user)
}

// telling is a store that tells all nodes what Redis would.
type telling struct{ counted }

func (s telling) tell(ids ...guard.ID) {
	s.world.mu.Lock()
	news, lost := slices.Clone(s.world.news), s.world.lost
	s.world.mu.Unlock()
	if lost {
		return
	}
	for _, id := range ids {
		for _, tell := range news {
			tell(guard.News{ID: id})
		}
	}
}

func (s telling) Acquire(ctx context.Context, claim guard.Claim, p guard.Policy) (guard.Verdict, error) {
	v, err := s.counted.Acquire(ctx, claim, p)
	s.tell(v.Replaced...)
	s.tell(v.Doubted...)
	if v.Answered {
		s.tell(v.Guard.ID)
	}
	return v, err
}

func (s telling) AcquireAll(ctx context.Context, requests []guard.Request) []guard.Answer {
	answers := make([]guard.Answer, len(requests))
	for i, r := range requests {
		answers[i].Verdict, answers[i].Err = s.Acquire(ctx, r.Claim, r.Policy)
	}
	return answers
}

func (s telling) Refresh(ctx context.Context, user string, id guard.ID, p guard.Policy) (guard.Verdict, error) {
	v, err := s.counted.Refresh(ctx, user, id, p)
	if v.Answered {
		s.tell(id)
	}
	return v, err
}

func (s telling) Release(ctx context.Context, user string, id guard.ID, p guard.Policy) (bool, error) {
	found, err := s.counted.Release(ctx, user, id, p)
	s.tell(id)
	return found, err
}

func (s telling) Revoke(ctx context.Context, user string, id guard.ID, p guard.Policy) (bool, error) {
	found, err := s.counted.Revoke(ctx, user, id, p)
	s.tell(id)
	return found, err
}

func (s telling) CloseGuard(ctx context.Context, user string, id guard.ID) (bool, error) {
	closed, err := s.counted.CloseGuard(ctx, user, id)
	s.tell(id)
	return closed, err
}

func (s telling) Undo(ctx context.Context, user string, id guard.ID, replaced []guard.ID) (bool, error) {
	done, err := s.counted.Undo(ctx, user, id, replaced)
	s.tell(id)
	return done, err
}

// Watch implements guard.Watcher.
func (s telling) Watch(ctx context.Context, heard func(guard.News)) {
	s.world.mu.Lock()
	s.world.news = append(s.world.news, heard)
	s.world.mu.Unlock()
	<-ctx.Done()
}

// Tell is for nodes that see connections, which these do not.
func (s telling) Tell(context.Context, guard.News) error { return nil }

// bridge leads from a world to a Redis outside: it has that do what is asked at
// the world's time, and users of its own for each world.
type bridge struct {
	*redistest.Server
	redis  *redisstore.Store
	t      *testing.T
	prefix string
	runs   atomic.Int64
	last   time.Time // of Redis
	mu     sync.Mutex
	calls  chan func()
	done   chan struct{}
}

func newBridge(t *testing.T) *bridge {
	b := &bridge{Server: redistest.StartWithClock(t), t: t, calls: make(chan func()), done: make(chan struct{})}
	var err error
	if b.redis, err = redisstore.Open(redisstore.Options{Addresses: []string{b.Addr}, Timeout: 20 * time.Second}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.redis.Close() })
	go func() {
		for call := range b.calls {
			call()
			b.done <- struct{}{}
		}
	}()
	t.Cleanup(func() { close(b.calls) })
	// What time it is there, a guard says.
	v, err := b.redis.Acquire(context.Background(), guard.Claim{User: "clock", ID: guard.NewID("clock", "")}, guard.Policy{Limit: 1, Interval: time.Second, TTL: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	b.last = v.Guard.CreatedAt
	return b
}

// there calls something of Redis at the world's time.
func (b *bridge) there(call func(ctx context.Context)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if d := now.Sub(b.last); d != 0 {
		b.Advance(b.t, d)
		b.last = now
	}
	b.calls <- func() { call(context.Background()) }
	<-b.done
}

func (b *bridge) user(name string) string { return b.prefix + name }

func (b *bridge) Acquire(_ context.Context, c guard.Claim, p guard.Policy) (v guard.Verdict, err error) {
	user := c.User
	c.User = b.user(user)
	b.there(func(ctx context.Context) { v, err = b.redis.Acquire(ctx, c, p) })
	v.Guard.User = user
	return v, err
}

func (b *bridge) Refresh(_ context.Context, user string, id guard.ID, p guard.Policy) (v guard.Verdict, err error) {
	b.there(func(ctx context.Context) { v, err = b.redis.Refresh(ctx, b.user(user), id, p) })
	return v, err
}

func (b *bridge) Release(_ context.Context, user string, id guard.ID, p guard.Policy) (found bool, err error) {
	b.there(func(ctx context.Context) { found, err = b.redis.Release(ctx, b.user(user), id, p) })
	return found, err
}

func (b *bridge) Revoke(_ context.Context, user string, id guard.ID, p guard.Policy) (found bool, err error) {
	b.there(func(ctx context.Context) { found, err = b.redis.Revoke(ctx, b.user(user), id, p) })
	return found, err
}

func (b *bridge) CloseGuard(_ context.Context, user string, id guard.ID) (closed bool, err error) {
	b.there(func(ctx context.Context) { closed, err = b.redis.CloseGuard(ctx, b.user(user), id) })
	return closed, err
}

func (b *bridge) Undo(_ context.Context, user string, id guard.ID, replaced []guard.ID) (done bool, err error) {
	b.there(func(ctx context.Context) { done, err = b.redis.Undo(ctx, b.user(user), id, replaced) })
	return done, err
}

func (b *bridge) List(_ context.Context, user string) (guards []guard.Guard, err error) {
	b.there(func(ctx context.Context) { guards, err = b.redis.List(ctx, b.user(user)) })
	return guards, err
}
