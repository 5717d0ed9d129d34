package caddymodule

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/rewrite"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/net/idna"

	"github.com/streamguard/streamguard/api"
	"github.com/streamguard/streamguard/audience"
	"github.com/streamguard/streamguard/caddymodule/storage"
	"github.com/streamguard/streamguard/gate"
	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/lease"
	"github.com/streamguard/streamguard/memstore"
	"github.com/streamguard/streamguard/playback"
	"github.com/streamguard/streamguard/replay"
)

// replayed is the sites of a config with their gates, through which a log goes. All
// that a request meets on its way to a gate and that changes what the gate sees is
// there; nothing else is.
type replayed struct {
	servers [][]step
	named   map[string]json.RawMessage // routes of the server at hand
	sites   []string                   // those with a gate, by their hosts; "" has any
	gates   []*Handler
	users   map[*Handler]string // their options user, as in Format.Set
	others  map[*Handler]bool   // those of sites that were not asked for

	clock  *replay.Clock
	store  *memstore.Store
	keeper *lease.Keeper
	seen   *audience.Audience
	said   *said

	set      map[string]string // as Format.Set
	sources  []string          // what maps go by
	gave     map[string]bool   // texts with placeholders that have had a value
	site     string            // the only one, if so
	host     string            // of lines that have none; "" where they may be of several sites
	assigned map[assignment][]*folder
	long     map[*replay.Line]answering
	asked    map[guard.ID]time.Time // playbacks of those, and when they were asked for last
	server   caddyhttp.Server
	missing  missing
	last     time.Time // request
}

// step is a route on the way to a gate.
type step struct {
	matchers caddyhttp.MatcherSets
	group    string
	terminal bool
	does     []doing
}

// doing is a handler of a route: one of these.
type doing struct {
	gate    *Handler
	sub     []step
	changes caddyhttp.MiddlewareHandler
	source  string // what a map goes by
}

// changing are the handlers that change what a gate sees of a request, and do nothing
// else.
var changing = []string{"rewrite", "map", "vars", "stream_guard_token"}

// missing is how many of the requests that were judged do not say something, and how
// many were not judged for what they are.
type missing struct {
	judged, agent, duration, filtered int64
	unnamed                           int64 // playbacks without a name, of which media was asked for
	failed, sentOn, hostless, method  int64
	text                              bool // the log is none of JSON
}

// answering is a playback of which an answer is being sent for long.
type answering struct {
	*gate.Passage
	user    string
	endless bool
}

// assignment is what a playback is known by in a log without tokens.
type assignment struct {
	user, device, stream, host string
	client                     guard.Client
}

// folder is where one client's playback of a stream is, and the token that it is given.
type folder struct {
	path   string
	id     guard.ID
	last   time.Time
	played bool // media was asked for
}

// newReplayed reads a config. Of its sites only one is replayed, if it is named; set is
// as Format.Set.
func newReplayed(ctx caddy.Context, config []byte, site string, set map[string]string) (*replayed, error) {
	var c struct {
		Apps struct {
			HTTP struct {
				Servers map[string]struct {
					Routes []json.RawMessage          `json:"routes"`
					Named  map[string]json.RawMessage `json:"named_routes"`
				} `json:"servers"`
			} `json:"http"`
		} `json:"apps"`
	}
	if err := json.Unmarshal(config, &c); err != nil {
		return nil, err
	}
	lower := bytes.ToLower(config)
	for placeholder := range set {
		if !bytes.Contains(lower, []byte(strings.ToLower(strings.Trim(placeholder, "{}")))) {
			return nil, fmt.Errorf("--set: nothing in the config goes by %s", placeholder)
		}
	}
	clock := new(replay.Clock)
	r := &replayed{
		clock: clock, users: make(map[*Handler]string), others: make(map[*Handler]bool), set: set, gave: make(map[string]bool), said: new(said), seen: audience.New(),
		assigned: make(map[assignment][]*folder), long: make(map[*replay.Line]answering), asked: make(map[guard.ID]time.Time),
	}
	var others []string // sites with a gate that are not the one
	for _, name := range slices.Sorted(maps.Keys(c.Apps.HTTP.Servers)) {
		server := c.Apps.HTTP.Servers[name]
		r.named = server.Named
		steps, leads, err := r.steps(ctx, server.Routes, nil, site, &others)
		if err != nil {
			return nil, fmt.Errorf("server %s: %w", name, err)
		}
		if leads {
			r.servers = append(r.servers, steps)
		}
	}
	switch {
	case len(r.gates) == 0 && len(others) > 0:
		return nil, fmt.Errorf("--site: no site %q of the config has a stream_guard; there is %s", site, strings.Join(others, "; "))
	case len(r.gates) == 0:
		return nil, errors.New("the config has no stream_guard")
	}
	for _, h := range r.gates[1:] {
		if string(h.StoreRaw) != string(r.gates[0].StoreRaw) {
			return nil, fmt.Errorf("the config's gates have different stores: choose one by --site, of %s", strings.Join(r.sites, "; "))
		}
	}
	r.site = site
	if r.host = site; site == "" && len(r.sites) == 1 {
		first, _, _ := strings.Cut(r.sites[0], ", ")
		r.host = cmp.Or(strings.ReplaceAll(asciiHost(first), "*", "any"), "any")
	}
	return r, nil
}

// steps are the routes of a server, or within one, as far as they change something or
// lead to a gate.
func (r *replayed) steps(ctx caddy.Context, routes []json.RawMessage, hosts []string, site string, others *[]string) (steps []step, leads bool, err error) {
	for _, raw := range routes {
		var route struct {
			Group    string                   `json:"group"`
			Terminal bool                     `json:"terminal"`
			Match    caddyhttp.RawMatcherSets `json:"match"`
			Handle   []json.RawMessage        `json:"handle"`
		}
		if err := json.Unmarshal(raw, &route); err != nil {
			return nil, false, err
		}
		inner := hosts
		if narrower := hostsIn(route.Match); len(narrower) > 0 {
			inner = narrower
		}
		fits := func(host string) bool { return hostFits(asciiHost(host), site) }
		if strings.Contains(site, "*") { // a narrower one may be in between
			fits = func(host string) bool { return asciiHost(host) == site || hostFits(site, asciiHost(host)) }
		}
		if site != "" && len(inner) > 0 && !slices.ContainsFunc(inner, fits) {
			if name := strings.Join(inner, ", "); bytes.Contains(raw, []byte(`"stream_guard"`)) && !slices.Contains(*others, name) {
				*others = append(*others, name)
			}
			continue
		}
		s := step{group: route.Group, terminal: route.Terminal}
		for _, raw := range route.Handle {
			var handler struct {
				Name   string            `json:"handler"`
				Source string            `json:"source"`
				Route  string            `json:"name"`
				Routes []json.RawMessage `json:"routes"`
			}
			if err := json.Unmarshal(raw, &handler); err != nil {
				return nil, false, err
			}
			switch {
			case handler.Name == "subroute", handler.Name == "invoke":
				inside := handler.Routes
				to, invoked := r.named[handler.Route]
				if invoked { // it may invoke itself
					inside = []json.RawMessage{to}
					delete(r.named, handler.Route)
				}
				sub, there, err := r.steps(ctx, inside, inner, site, others)
				if err != nil {
					return nil, false, err
				}
				if invoked {
					r.named[handler.Route] = to
				}
				s.does = append(s.does, doing{sub: sub})
				leads = leads || there
			case handler.Name == "stream_guard":
				h := new(Handler)
				if err := caddy.StrictUnmarshalJSON(withoutName(raw), h); err != nil {
					return nil, false, fmt.Errorf("stream_guard: %w", err)
				}
				r.users[h] = spelled(h.User)
				if err := r.provision(h); err != nil {
					return nil, false, fmt.Errorf("stream_guard: %w", err)
				}
				r.gates = append(r.gates, h)
				if strings.Contains(site, "*") && len(inner) > 0 && !slices.ContainsFunc(inner, func(host string) bool { return asciiHost(host) == site }) {
					r.others[h] = true
				}
				if name := strings.Join(inner, ", "); !slices.Contains(r.sites, name) {
					r.sites = append(r.sites, name)
				}
				s.does = append(s.does, doing{gate: h})
				leads = true
			case slices.Contains(changing, handler.Name):
				mod, err := ctx.LoadModuleByID("http.handlers."+handler.Name, withoutName(raw))
				if err != nil {
					return nil, false, fmt.Errorf("%s: %w", handler.Name, err)
				}
				s.does = append(s.does, doing{changes: mod.(caddyhttp.MiddlewareHandler), source: handler.Source})
				if handler.Source != "" {
					r.sources = append(r.sources, handler.Source)
				}
			}
		}
		if len(route.Match) > 0 {
			loaded := caddyhttp.Route{MatcherSetsRaw: route.Match}
			if err := loaded.ProvisionMatchers(ctx); err != nil {
				return nil, false, err
			}
			s.matchers = loaded.MatcherSets
		}
		steps = append(steps, s)
	}
	return steps, leads, nil
}

// hostsIn are the hosts of a route, none where it goes by something else.
func hostsIn(sets caddyhttp.RawMatcherSets) (hosts []string) {
	for _, set := range sets {
		var own []string
		if json.Unmarshal(set["host"], &own) != nil || len(own) == 0 {
			return nil
		}
		hosts = append(hosts, own...)
	}
	return hosts
}

// hostFits reports whether a host is one that a matcher names, as Caddy has it: a * is one
// label.
func hostFits(pattern, host string) bool {
	parts, of := strings.Split(strings.ToLower(pattern), "."), strings.Split(strings.ToLower(host), ".")
	return slices.EqualFunc(parts, of, func(part, label string) bool { return part == "*" || part == label })
}

// asciiHost is a host as requests name it.
func asciiHost(host string) string {
	if ascii, err := idna.ToASCII(host); err == nil {
		host = ascii
	}
	return strings.ToLower(host)
}

// spelled is a placeholder as JSON has it, and the name of a header in it as headers are
// written: there are several ways to write one.
func spelled(placeholder string) string {
	long := unshortened(placeholder)
	if name := soleHeader(long); name != "" {
		return "{http.request.header." + name + "}"
	}
	return long
}

func withoutName(raw json.RawMessage) json.RawMessage {
	var fields map[string]json.RawMessage
	if json.Unmarshal(raw, &fields) != nil {
		return raw
	}
	delete(fields, "handler")
	b, _ := json.Marshal(fields)
	return b
}

// provision has a gate judge what is replayed.
func (r *replayed) provision(h *Handler) error {
	h.setDefaults()
	if err := h.check(); err != nil {
		return err
	}
	h.logger = zap.New(r.said)
	h.logUsers = storage.Plain
	h.reports = new(sometimes)
	h.crowds = newCrowds(h.Playback == "stream")
	h.read = newReader(h)
	for i := range h.read.rules {
		if rule := &h.read.rules[i]; rule.number != nil {
			rule.number = r.watch(rule.name, rule.number)
		}
	}
	if h.read.device != nil {
		h.read.device = r.watch(h.Device, h.read.device)
	}
	for i, l := range h.read.labels {
		h.read.labels[i].value = r.watch(h.Labels[l.name], l.value)
	}
	h.read.userIn = nil // a login's header is not read: the line says who it was
	h.read.user = func(req *http.Request, _ *caddy.Replacer) string {
		return r.userOf(req.Context().Value(lineKey{}).(*replay.Line), h)
	}
	if h.API != "off" {
		h.api = new(api.API) // which is not called: only its paths count
	}
	return nil
}

// Begin implements replay.Site.
func (r *replayed) Begin() {
	r.store = memstore.NewAt(r.clock.Now)
	local := memstore.NewAt(r.clock.Now) // which stays empty: the store always answers
	r.keeper = lease.NewAt(counting{r.store, r}, local, r.clock.Now)
	r.seen.Watch(r.clock.Now())
	memory := gate.NewMemoryAt(r.clock.Now)
	for _, h := range r.gates {
		h.gate = gate.New(r.keeper, local, r.seen, memory)
		h.setNaming()
	}
}

// watch notes whether a source has ever had a value.
func (r *replayed) watch(text string, s source) source {
	return func(req *http.Request, repl *caddy.Replacer) string {
		value := s(req, repl)
		if value == redacted {
			return ""
		}
		if value != "" {
			r.gave[text] = true
		}
		return value
	}
}

type lineKey struct{}

var nothing = caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return nil })

// matches reports whether a route is for a request. One that cannot be asked is not.
func matches(m caddyhttp.MatcherSets, req *http.Request) bool {
	match, err := m.AnyMatchWithError(req)
	return match && err == nil
}

// find is the gate that a request comes to.
func (r *replayed) find(steps []step, req *http.Request) (gate *Handler, over bool) {
	var taken []string
	for _, s := range steps {
		if s.group != "" && slices.Contains(taken, s.group) || s.matchers != nil && !matches(s.matchers, req) {
			continue
		}
		if s.group != "" {
			taken = append(taken, s.group)
		}
		for _, d := range s.does {
			switch {
			case d.gate != nil:
				return d.gate, true
			case d.changes != nil:
				repl := req.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
				if d.source != "" && repl.ReplaceAll(d.source, "") != "" {
					r.gave[d.source] = true
				}
				if rw, is := d.changes.(*rewrite.Rewrite); is { // its ServeHTTP would log each
					rw.Rewrite(req, repl)
				} else {
					_ = d.changes.ServeHTTP(nil, req, nothing)
				}
			default:
				if gate, over = r.find(d.sub, req); over {
					return gate, true
				}
			}
		}
		if s.terminal {
			return nil, true
		}
	}
	return nil, false
}

// Request implements replay.Site.
func (r *replayed) Request(l *replay.Line) replay.Became {
	r.last = r.clock.Now()
	r.missing.text = r.missing.text || l.Text
	if l.Host == "" {
		r.missing.hostless++
	}
	if l.Host == "" && r.host == "" {
		return replay.Other
	}
	req, repl := r.request(l)
	if req == nil {
		return replay.Other
	}
	for _, steps := range r.servers {
		if h, _ := r.find(steps, req); h != nil && !r.others[h] {
			return r.judge(h, l, req, repl)
		}
	}
	return replay.Other
}

// request is the request that a line was.
func (r *replayed) request(l *replay.Line) (*http.Request, *caddy.Replacer) {
	u, err := url.ParseRequestURI(l.URI)
	if err != nil {
		return nil, nil
	}
	r.withoutFiltered(u)
	if l.Method == "" {
		r.missing.method++
	}
	proto := cmp.Or(l.Proto, "HTTP/1.1")
	major, minor, _ := http.ParseHTTPVersion(proto)
	req := &http.Request{
		Method: cmp.Or(l.Method, http.MethodGet), URL: u, Host: cmp.Or(l.Host, r.host), Header: l.Header, RequestURI: l.URI, Proto: proto, ProtoMajor: major, ProtoMinor: minor,
		RemoteAddr: net.JoinHostPort(l.Client, "0"), Body: http.NoBody,
	}
	if l.TLS {
		req.TLS = &tls.ConnectionState{HandshakeComplete: true}
	}
	for _, secret := range []string{"Cookie", "Authorization", "Proxy-Authorization", "Set-Cookie"} {
		if values := l.Header[secret]; len(values) == 1 && values[0] == redacted {
			delete(l.Header, secret)
		}
	}
	repl := caddy.NewReplacer()
	req = req.WithContext(context.WithValue(context.Background(), lineKey{}, l))
	req = caddyhttp.PrepareRequest(req, repl, nil, &r.server)
	caddyhttp.SetVar(req.Context(), caddyhttp.ClientIPVarKey, l.Client)
	for placeholder, value := range l.Set {
		give(req, repl, placeholder, value)
	}
	if l.User == redacted {
		l.User = ""
	}
	for _, h := range r.gates { // what else goes by the user sees him where the gate does
		give(req, repl, h.User, r.userOf(l, h))
	}
	return req, repl
}

// userOf is who watches, to a gate.
func (r *replayed) userOf(l *replay.Line, h *Handler) string {
	return cmp.Or(l.User, l.Set[r.users[h]])
}

// give has a request have the value of a placeholder.
func give(req *http.Request, repl *caddy.Replacer, placeholder, value string) {
	key, sole := soleKey(placeholder)
	switch name := soleHeader(placeholder); {
	case name != "" && value == "":
		delete(req.Header, name) // which a client wrote
	case name != "":
		req.Header.Set(name, value)
	case sole && value != "":
		repl.Set(key, value)
	}
}

// redacted is what Caddy writes in place of a secret, and filtered what its filters may.
const redacted = "REDACTED"

var filtered = regexp.MustCompile(`^(REDACTED|[0-9a-f]{8}|[*xX.-]{3,})$`)

// withoutFiltered takes from a path the tokens that a filter of the log has made
// unreadable: nothing in them tells playbacks apart for certain.
func (r *replayed) withoutFiltered(u *url.URL) {
	if !strings.Contains(u.Path, "/~") {
		return
	}
	parts := strings.Split(u.Path, "/")
	kept := slices.DeleteFunc(slices.Clone(parts), func(part string) bool {
		token, is := strings.CutPrefix(part, "~")
		return is && filtered.MatchString(token)
	})
	if len(kept) < len(parts) {
		r.missing.filtered++
		u.Path, u.RawPath = strings.Join(kept, "/"), ""
	}
}

// judge has a gate judge a request, as ServeHTTP does.
func (r *replayed) judge(h *Handler, l *replay.Line, req *http.Request, repl *caddy.Replacer) replay.Became {
	h.putBack(req)
	id, tokened, cut := h.token(req)
	if h.onAPI(req.URL.Path) {
		return r.explicit(h, l, req)
	}
	kind := playback.Other
	if req.Method == http.MethodGet || req.Method == http.MethodHead {
		kind = h.read.kinds.Of(req.URL.Path)
	}
	switch {
	case kind == playback.Other:
		if looks := playback.Guess(req.URL.Path, l.Type); looks != "" && !cut && !h.read.kinds.Knows(req.URL.Path) && l.Status < 300 && l.Status >= 200 {
			r.seen.Uncounted(looks, req.URL.Path)
		}
		return replay.Other
	case l.Status >= 300 && l.Status < 400 && l.Status != http.StatusNotModified:
		r.missing.sentOn++ // what counts is what follows
		return replay.Judged
	case l.Status >= 400 && l.Status != http.StatusTooManyRequests && l.Status != 499:
		r.missing.failed++ // what is not delivered keeps no guard
		return replay.Judged
	}
	g := &gate.Request{Kind: kind}
	if tokened {
		g.Token = &id
	}
	r.missing.judged++
	h.fill(g, req, repl)
	g.Mode, g.Refused = gate.Observe, l.Status == http.StatusTooManyRequests
	r.missing.note(l)
	if g.User == "" || g.Invalid != nil {
		return replay.Nobody
	}
	g.Endless = l.Duration >= time.Duration(h.Interval)/3 && l.Unbounded && l.Status == http.StatusOK
	if g.Token == nil && kind == playback.Manifest {
		h.lookForCrowds(g)
	}
	r.assign(h, g, l)
	p := h.gate.Begin(context.Background(), g)
	p.End(true)
	if _, long := r.asked[p.ID]; long {
		r.asked[p.ID] = r.clock.Now()
	}
	if l.Lasts() {
		r.long[l] = answering{p, g.User, g.Endless}
		r.asked[p.ID] = r.clock.Now()
	}
	return replay.Judged
}

// note counts what a line does not say.
func (m *missing) note(l *replay.Line) {
	if l.Header.Get("User-Agent") == "" {
		m.agent++
	}
	if l.Duration == 0 {
		m.duration++
	}
}

// assign gives a request the token that it would have had. Its playback is that of its
// client's last manifest at or above its folder.
func (r *replayed) assign(h *Handler, g *gate.Request, l *replay.Line) {
	if g.Token != nil || g.Behind || h.gate.Naming != gate.ByToken {
		return
	}
	if _, named := h.gate.Named(g); named {
		return
	}
	key := assignment{g.User, g.Device, g.Stream, l.Host, g.Client}
	dir, _ := path.Split(g.HTTP.URL.Path)
	over := func(f *folder) bool { return r.clock.Now().Sub(f.last) >= time.Duration(h.TTL) }
	for _, f := range r.assigned[key] {
		if !strings.HasPrefix(dir, f.path) || over(f) {
			continue
		}
		if f.last = r.clock.Now(); g.Kind == playback.Media && !f.played {
			f.played = true
			r.missing.unnamed++
		}
		g.Token, g.Movable = &f.id, false
		return
	}
	if g.Kind != playback.Manifest || g.Refused {
		return
	}
	f := &folder{path: strings.Clone(dir), id: guard.NewID(g.User, g.Device), last: r.clock.Now()}
	r.assigned[key] = append(slices.DeleteFunc(r.assigned[key], over), f)
	g.Token, g.Movable = &f.id, false
}

// explicit is a call of the API, as far as a line has it: its body is not there.
func (r *replayed) explicit(h *Handler, l *replay.Line, req *http.Request) replay.Became {
	rest := strings.Split(strings.Trim(strings.TrimPrefix(req.URL.Path, h.API), "/"), "/")
	id, err := guard.ParseID(rest[0])
	user := r.userOf(l, h)
	if err != nil || user == "" || l.Status >= 300 {
		return replay.Other
	}
	policy := gate.Observed(h.read.policy)
	switch {
	case req.Method == http.MethodDelete, req.Method == http.MethodPost && len(rest) == 2 && rest[1] == "release":
		_, _ = r.keeper.Release(req.Context(), user, id, policy)
	case req.Method == http.MethodPatch:
		_, _ = r.keeper.Refresh(req.Context(), user, id, policy)
	}
	return replay.Other
}

// Goes implements replay.Site.
func (r *replayed) Goes(l *replay.Line) {
	if a, counted := r.long[l]; counted {
		a.Lives(context.Background())
		r.asked[a.ID] = r.clock.Now()
	}
}

// Ended implements replay.Site. The guard of an endless answer is closed when that is
// over and nothing else was asked for.
func (r *replayed) Ended(l *replay.Line) {
	a := r.long[l]
	delete(r.long, l)
	if a.endless && !r.asked[a.ID].After(l.Ended()) {
		delete(r.asked, a.ID)
		_, _ = r.keeper.HangUp(context.Background(), a.user, a.ID)
	}
}

// Sweep implements replay.Site.
func (r *replayed) Sweep() {
	r.store.Sweep()
	r.keeper.Sweep()
	for key, folders := range r.assigned {
		if !slices.ContainsFunc(folders, func(f *folder) bool { return r.clock.Now().Sub(f.last) < time.Hour }) {
			delete(r.assigned, key)
		}
	}
	for id, at := range r.asked {
		if r.clock.Now().Sub(at) > time.Hour {
			delete(r.asked, id)
		}
	}
}

// counting is a store whose calls are counted.
type counting struct {
	*memstore.Store
	of *replayed
}

// Acquire implements guard.Store.
func (c counting) Acquire(ctx context.Context, claim guard.Claim, p guard.Policy) (guard.Verdict, error) {
	c.of.seen.Calls(c.of.clock.Now(), 1)
	return c.Store.Acquire(ctx, claim, p)
}

// said keeps what the gates would say in their log.
type said struct {
	mu    sync.Mutex
	lines []string
}

// Enabled implements zapcore.LevelEnabler.
func (*said) Enabled(level zapcore.Level) bool { return level >= zapcore.WarnLevel }

// With implements zapcore.Core.
func (s *said) With([]zapcore.Field) zapcore.Core { return s }

// Check implements zapcore.Core.
func (s *said) Check(e zapcore.Entry, to *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if s.Enabled(e.Level) {
		return to.AddCore(e, s)
	}
	return to
}

// Write implements zapcore.Core.
func (s *said) Write(e zapcore.Entry, fields []zapcore.Field) error {
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range fields {
		if f.Key != "request_id" {
			f.AddTo(enc)
		}
	}
	line, _, _ := strings.Cut(e.Message, "; said once")
	if b, err := json.Marshal(enc.Fields); err == nil && len(enc.Fields) > 0 {
		line += " " + string(b)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.lines) < 20 {
		s.lines = append(s.lines, line)
	}
	return nil
}

// Sync implements zapcore.Core.
func (*said) Sync() error { return nil }
