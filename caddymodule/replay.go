package caddymodule

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
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
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
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
	hosts   []string // of the sites with a gate; empty where one has any
	gates   []*Handler
	users   []string // their options user, as in set

	clock  *replay.Clock
	store  *memstore.Store
	keeper *lease.Keeper
	seen   *audience.Audience
	said   *said

	set      map[string]string // as Format.Set
	gave     map[string]bool   // texts with placeholders that have had a value
	site     string            // the only one, if so
	host     string            // of lines that have none
	assigned map[assignment]*assigned
	long     map[*replay.Line]*visit
	asked    map[guard.ID]time.Time // playbacks of those, and when they were asked for last
	server   caddyhttp.Server
	missing  missing
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
}

// changing are the handlers that change what a gate sees of a request, and do nothing
// else.
var changing = []string{"rewrite", "map", "vars", "stream_guard_token"}

// missing is how many of the requests that were judged do not say something.
type missing struct{ judged, user, agent, duration, assigned, filtered int64 }

// assignment is what a playback is known by in a log without tokens.
type assignment struct {
	user, device, stream, host string
	client                     guard.Client
}

// assigned are the tokens of one client's playbacks of a stream, by folder.
type assigned struct {
	folders []folder
}

type folder struct {
	path string
	id   guard.ID
	last time.Time
}

// newReplayed reads a config.
func newReplayed(ctx caddy.Context, config []byte, site string, set map[string]string) (*replayed, error) {
	var c struct {
		Apps struct {
			HTTP struct {
				Servers map[string]struct {
					Routes []json.RawMessage `json:"routes"`
				} `json:"servers"`
			} `json:"http"`
		} `json:"apps"`
	}
	if err := json.Unmarshal(config, &c); err != nil {
		return nil, err
	}
	clock := new(replay.Clock)
	r := &replayed{
		clock: clock, set: set, gave: make(map[string]bool), said: new(said), seen: audience.New(),
		assigned: make(map[assignment]*assigned), long: make(map[*replay.Line]*visit), asked: make(map[guard.ID]time.Time),
	}
	names := make([]string, 0, len(c.Apps.HTTP.Servers))
	for name := range c.Apps.HTTP.Servers {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		steps, err := r.steps(ctx, c.Apps.HTTP.Servers[name].Routes, nil, site)
		if err != nil {
			return nil, fmt.Errorf("server %s: %w", name, err)
		}
		if steps != nil {
			r.servers = append(r.servers, steps)
		}
	}
	switch {
	case len(r.gates) == 0 && site != "":
		return nil, fmt.Errorf("no site %q of the config has a stream_guard", site)
	case len(r.gates) == 0:
		return nil, errors.New("the config has no stream_guard")
	}
	for _, h := range r.gates[1:] {
		if string(h.StoreRaw) != string(r.gates[0].StoreRaw) {
			return nil, fmt.Errorf("the config's gates have different stores: choose one by --site, of %s", strings.Join(r.hosts, ", "))
		}
	}
	r.site, r.host = site, site
	if r.host == "" && len(r.hosts) > 0 {
		r.host = r.hosts[0]
	}
	r.host = strings.ReplaceAll(asciiHost(r.host), "*", "any")
	return r, nil
}

// steps are the routes that lead to a gate; nil if none does.
func (r *replayed) steps(ctx caddy.Context, routes []json.RawMessage, hosts []string, site string) (steps []step, err error) {
	leads := false
	for _, raw := range routes {
		var route struct {
			Group    string                   `json:"group"`
			Terminal bool                     `json:"terminal"`
			Match    caddyhttp.RawMatcherSets `json:"match"`
			Handle   []json.RawMessage        `json:"handle"`
		}
		if err := json.Unmarshal(raw, &route); err != nil {
			return nil, err
		}
		inner := hosts
		for _, set := range route.Match {
			var own []string
			if json.Unmarshal(set["host"], &own) == nil {
				inner = own
			}
		}
		if site != "" && len(inner) > 0 && !slices.ContainsFunc(inner, func(host string) bool { return hostFits(asciiHost(host), site) }) {
			continue
		}
		s := step{group: route.Group, terminal: route.Terminal}
		for _, raw := range route.Handle {
			var handler struct {
				Name   string            `json:"handler"`
				Routes []json.RawMessage `json:"routes"`
			}
			if err := json.Unmarshal(raw, &handler); err != nil {
				return nil, err
			}
			switch {
			case handler.Name == "subroute":
				sub, err := r.steps(ctx, handler.Routes, inner, site)
				if err != nil {
					return nil, err
				}
				s.does = append(s.does, doing{sub: sub})
				leads = leads || sub != nil
			case handler.Name == "stream_guard":
				h := new(Handler)
				if err := caddy.StrictUnmarshalJSON(withoutName(raw), h); err != nil {
					return nil, fmt.Errorf("stream_guard: %w", err)
				}
				if err := r.provision(h); err != nil {
					return nil, fmt.Errorf("stream_guard: %w", err)
				}
				r.gates = append(r.gates, h)
				r.users = append(r.users, spelled(h.User))
				r.hosts = append(r.hosts, inner...)
				s.does = append(s.does, doing{gate: h})
				leads = true
			case slices.Contains(changing, handler.Name):
				mod, err := ctx.LoadModuleByID("http.handlers."+handler.Name, withoutName(raw))
				if err != nil {
					return nil, fmt.Errorf("%s: %w", handler.Name, err)
				}
				s.does = append(s.does, doing{changes: mod.(caddyhttp.MiddlewareHandler)})
			}
		}
		if len(route.Match) > 0 {
			loaded := caddyhttp.Route{MatcherSetsRaw: route.Match}
			if err := loaded.ProvisionMatchers(ctx); err != nil {
				return nil, err
			}
			s.matchers = loaded.MatcherSets
		}
		steps = append(steps, s)
	}
	if !leads {
		return nil, nil
	}
	return steps, nil
}

func hostFits(pattern, host string) bool {
	fits, err := path.Match(strings.ToLower(pattern), strings.ToLower(host))
	return err == nil && fits
}

// asciiHost is a host as requests name it.
func asciiHost(host string) string {
	if ascii, err := idna.ToASCII(host); err == nil {
		host = ascii
	}
	return strings.ToLower(host)
}

// spelled is a placeholder of a Caddyfile as JSON has it, and the name of a header in it as
// headers are written: there are several ways to write one.
func spelled(placeholder string) string {
	segment := caddyfile.Segment{{Text: placeholder}}
	httpcaddyfile.NewShorthandReplacer().ApplyToSegment(&segment)
	if name := soleHeader(segment[0].Text); name != "" {
		return "{http.request.header." + name + "}"
	}
	return segment[0].Text
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
	h.read.user = func(r *http.Request, _ *caddy.Replacer) string {
		return r.Context().Value(lineKey{}).(*replay.Line).User
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
func find(steps []step, req *http.Request) (gate *Handler, over bool) {
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
				if r, is := d.changes.(*rewrite.Rewrite); is { // its ServeHTTP would log each
					r.Rewrite(req, req.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer))
				} else {
					_ = d.changes.ServeHTTP(nil, req, nothing)
				}
			default:
				if gate, over = find(d.sub, req); over {
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
	req, repl := r.request(l)
	if req == nil {
		return replay.Other
	}
	for _, steps := range r.servers {
		if h, _ := find(steps, req); h != nil {
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
	host := cmp.Or(l.Host, r.host)
	req := &http.Request{
		Method: l.Method, URL: u, Host: host, Header: l.Header, RequestURI: l.URI, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		RemoteAddr: net.JoinHostPort(l.Client, "0"), Body: http.NoBody,
	}
	for _, secret := range []string{"Cookie", "Authorization", "Proxy-Authorization", "Set-Cookie"} {
		if values := l.Header[secret]; len(values) == 1 && values[0] == redacted {
			delete(l.Header, secret)
		}
	}
	repl := caddy.NewReplacer()
	if l.User == redacted {
		l.User = ""
	}
	for i, h := range r.gates { // what else goes by the user sees him where the gate does
		l.User = cmp.Or(l.User, l.Set[r.users[i]])
		if name := soleHeader(h.User); name != "" {
			delete(req.Header, name)
			if l.User != "" {
				req.Header.Set(name, l.User)
			}
		} else if key, sole := soleKey(h.User); sole && l.User != "" {
			repl.Set(key, l.User)
		}
	}
	req = req.WithContext(context.WithValue(context.Background(), lineKey{}, l))
	req = caddyhttp.PrepareRequest(req, repl, nil, &r.server)
	caddyhttp.SetVar(req.Context(), caddyhttp.ClientIPVarKey, l.Client)
	for placeholder, value := range l.Set {
		key := strings.Trim(placeholder, "{}")
		if name := soleHeader(placeholder); name != "" {
			req.Header.Set(name, value)
		}
		repl.Set(key, value)
	}
	return req, repl
}

// redacted is what Caddy writes in place of a secret, and filtered what its filters may.
const redacted = "REDACTED"

var filtered = regexp.MustCompile(`^(REDACTED|[0-9a-f]{8}|[*xX.-]+)$`)

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
		return replay.Judged // sent on: what counts is what follows
	case l.Status >= 400 && l.Status != http.StatusTooManyRequests && l.Status != 499:
		return replay.Judged // what is not delivered keeps no guard
	}
	v := new(visit)
	v.users = storage.Plain
	g := &v.request
	g.Kind = kind
	if tokened {
		g.Token = &id
	}
	r.missing.judged++
	h.fill(g, req, repl)
	g.Mode, g.Refused = gate.Observe, l.Status == http.StatusTooManyRequests
	r.missing.note(l)
	if g.User == "" || g.Invalid != nil {
		r.missing.user++
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
	if l.Duration > 15*time.Second {
		v.passage = p
		r.long[l] = v
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
	found := r.assigned[key]
	if found != nil {
		for i := range found.folders {
			if f := &found.folders[i]; strings.HasPrefix(dir, f.path) && r.clock.Now().Sub(f.last) < time.Duration(h.TTL) {
				f.last = r.clock.Now()
				g.Token, g.Movable = &f.id, false
				return
			}
		}
	}
	if g.Kind != playback.Manifest || g.Refused {
		return
	}
	if found == nil {
		found = new(assigned)
		r.assigned[key] = found
	}
	found.folders = slices.DeleteFunc(found.folders, func(f folder) bool { return r.clock.Now().Sub(f.last) >= time.Duration(h.TTL) })
	found.folders = append(found.folders, folder{strings.Clone(dir), guard.NewID(g.User, g.Device), r.clock.Now()})
	g.Token, g.Movable = &found.folders[len(found.folders)-1].id, false
	r.missing.assigned++
}

// explicit is a call of the API, as far as a line has it: its body is not there.
func (r *replayed) explicit(h *Handler, l *replay.Line, req *http.Request) replay.Became {
	rest := strings.Split(strings.Trim(strings.TrimPrefix(req.URL.Path, h.API), "/"), "/")
	id, err := guard.ParseID(rest[0])
	if err != nil || l.User == "" || l.Status >= 300 {
		return replay.Other
	}
	policy := gate.Observed(h.read.policy)
	switch {
	case req.Method == http.MethodDelete, req.Method == http.MethodPost && len(rest) == 2 && rest[1] == "release":
		_, _ = r.keeper.Release(req.Context(), l.User, id, policy)
	case req.Method == http.MethodPatch:
		_, _ = r.keeper.Refresh(req.Context(), l.User, id, policy)
	}
	return replay.Other
}

// Goes implements replay.Site.
func (r *replayed) Goes(l *replay.Line, at time.Time) {
	if v := r.long[l]; v != nil {
		v.passage.Lives(context.Background())
		r.asked[v.passage.ID] = at
	}
}

// Ended implements replay.Site. The guard of an endless answer is closed when that is
// over and nothing else was asked for.
func (r *replayed) Ended(l *replay.Line, at time.Time) {
	v := r.long[l]
	delete(r.long, l)
	if v != nil && v.request.Endless && !r.asked[v.passage.ID].After(l.Ended()) {
		delete(r.asked, v.passage.ID)
		_, _ = r.keeper.HangUp(context.Background(), l.User, v.passage.ID)
	}
}

// Sweep implements replay.Site.
func (r *replayed) Sweep() {
	r.store.Sweep()
	r.keeper.Sweep()
	for key, a := range r.assigned {
		if !slices.ContainsFunc(a.folders, func(f folder) bool { return r.clock.Now().Sub(f.last) < time.Hour }) {
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
