package caddymodule

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/streamguard/streamguard/api"
	"github.com/streamguard/streamguard/caddymodule/storage"
	"github.com/streamguard/streamguard/gate"
	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/operate"
)

// byCall is what an operator has said: the gate is to observe, whatever mode it has.
// It is part of the gate, so that it ends with the config, and of nothing else.
type byCall struct {
	since time.Time
	sites []string
}

// observesByCall reports whether an operator has the gate observe.
func (h *Handler) observesByCall() bool { return h.byCall != nil && h.byCall.Load() != nil }

// inConfig are the gates by their config, which its registry of metrics stands for.
var (
	inConfig   = make(map[*prometheus.Registry][]*Handler)
	inConfigMu sync.Mutex
)

func (h *Handler) joinConfig(ctx caddy.Context) {
	inConfigMu.Lock()
	defer inConfigMu.Unlock()
	config := ctx.GetMetricsRegistry()
	inConfig[config] = append(inConfig[config], h)
}

// leaveConfig is the end of what an operator has said. Requests that are under way go on
// as they are.
func (h *Handler) leaveConfig() {
	inConfigMu.Lock()
	defer inConfigMu.Unlock()
	for config, gates := range inConfig {
		i := slices.Index(gates, h)
		if i < 0 {
			continue
		}
		if inConfig[config] = slices.Delete(gates, i, i+1); len(inConfig[config]) == 0 {
			delete(inConfig, config)
		}
		if by := h.byCall.Load(); by != nil {
			observing.Dec()
			if !caddy.Exiting() {
				h.sayByCall("the config has changed, and a gate that observed because an operator said so does what its mode says", by)
			}
		}
	}
}

// observe has the gate observe from now on, or do again what its mode says. It returns
// since when an operator has it observe.
func (h *Handler) observe(on bool, sites []string) *time.Time {
	inConfigMu.Lock()
	defer inConfigMu.Unlock()
	by := h.byCall.Load()
	switch {
	case on && by == nil && h.isInConfig():
		by = &byCall{time.Now().UTC(), sites}
		h.byCall.Store(by)
		h.store.Audience.Watch(by.since)
		observing.Inc()
		h.sayByCall("an operator has said so: nobody is refused by this gate, here and until the config changes or it is taken back (caddy stream-guard observe --undo)", by)
	case !on && by != nil && h.isInConfig():
		h.byCall.Store(nil)
		observing.Dec()
		h.sayByCall("an operator has said so: a gate that observed does what its mode says", by)
		by = nil
	}
	if by == nil {
		return nil
	}
	return &by.since
}

func (h *Handler) isInConfig() bool {
	for _, gates := range inConfig {
		if slices.Contains(gates, h) {
			return true
		}
	}
	return false
}

func (h *Handler) sayByCall(what string, by *byCall) {
	caddy.Log().Named("http.handlers.stream_guard").Warn(what, zap.Strings("sites", by.sites), zap.String("store", h.store.Name), zap.String("mode", h.Mode), zap.Time("observing_since", by.since))
}

// gatesInUse are the gates of the running config, by their stores.
func gatesInUse() map[*storage.Pooled][]operate.Gate {
	ctx := caddy.ActiveContext()
	inConfigMu.Lock()
	running := slices.Clone(inConfig[ctx.GetMetricsRegistry()])
	inConfigMu.Unlock()
	found := make(map[*caddyhttp.Server]*sites)
	gates := make(map[*storage.Pooled][]operate.Gate)
	for _, h := range running {
		g := operate.Gate{Sites: h.sites(found), Store: h.store.Name, Mode: h.Mode}
		g.Observe = func(on bool) *time.Time { return h.observe(on, g.Sites) }
		if by := h.byCall.Load(); by != nil {
			g.ObservingSince = &by.since
		}
		gates[h.store] = append(gates[h.store], g)
	}
	for _, of := range gates {
		slices.SortStableFunc(of, func(a, b operate.Gate) int { return slices.Compare(a.Sites, b.Sites) })
	}
	return gates
}

// sites are where the gates of a server are: the hosts of the routes that lead to each.
type sites struct {
	srv   *caddyhttp.Server
	hosts map[*Handler][]string
	named []string // routes on the way
}

// sites are the hosts whose requests the gate judges, or else where its server listens:
// all its hosts, or it is in a handler of which nobody knows what it does with routes.
func (h *Handler) sites(found map[*caddyhttp.Server]*sites) []string {
	if h.neighbours == nil {
		return nil
	}
	srv := h.neighbours.srv
	s := found[srv]
	if s == nil {
		s = &sites{srv: srv, hosts: make(map[*Handler][]string)}
		s.routes(srv.Routes, nil)
		found[srv] = s
	}
	if hosts := s.hosts[h]; len(hosts) > 0 {
		slices.Sort(hosts)
		return slices.Compact(hosts)
	}
	return srv.Listen
}

func (s *sites) routes(routes caddyhttp.RouteList, hosts []string) {
	for i := range routes {
		s.route(&routes[i], hosts)
	}
}

func (s *sites) route(r *caddyhttp.Route, hosts []string) {
	if narrower, ok := hostsOf(r.MatcherSets); ok {
		hosts = narrower
	}
	for _, handler := range r.Handlers {
		switch does := handler.(type) {
		case *Handler:
			if hosts == nil {
				hosts = s.srv.Listen
			}
			s.hosts[does] = append(s.hosts[does], hosts...)
		case *caddyhttp.Subroute:
			s.routes(does.Routes, hosts)
		case *caddyhttp.Invoke:
			if to := s.srv.NamedRoutes[does.Name]; to != nil && !slices.Contains(s.named, does.Name) {
				s.named = append(s.named, does.Name)
				s.route(to, hosts)
				s.named = s.named[:len(s.named)-1]
			}
		}
	}
}

// hostsOf are the hosts that matchers let through, if they go by hosts.
func hostsOf(sets caddyhttp.MatcherSets) (hosts []string, ok bool) {
	for _, set := range sets {
		of := -1
		for i, m := range set {
			if _, is := m.(*caddyhttp.MatchHost); is {
				of = i
			}
		}
		if of < 0 {
			return nil, false
		}
		for _, host := range *set[of].(*caddyhttp.MatchHost) {
			hosts = append(hosts, strings.ToLower(host))
		}
	}
	return hosts, len(hosts) > 0
}

// relenting is the store of the API, where a start that has waited is not refused if an
// operator has said meanwhile that nobody is.
type relenting struct {
	api.Store
	observes func() bool
}

// Acquire implements guard.Store.
func (s relenting) Acquire(ctx context.Context, c guard.Claim, p guard.Policy) (guard.Verdict, error) {
	v, err := s.Store.Acquire(ctx, c, p)
	if err == nil && !p.Observe && !v.Outcome.Pass() && s.observes() {
		return s.Store.Acquire(ctx, c, gate.Observed(p))
	}
	return v, err
}
