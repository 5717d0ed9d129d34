package caddymodule

import (
	"net/http"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/streamguard/streamguard/api"
	"github.com/streamguard/streamguard/gate"
	"github.com/streamguard/streamguard/lease"
	"github.com/streamguard/streamguard/problem"
)

// mountAPI puts the API where the options say.
func (h *Handler) mountAPI() error {
	crossOrigin, err := h.crossOrigin()
	if err != nil {
		return err
	}
	store := h.connected.over(gate.Observer{Keeper: h.store.Keeper, Local: h.store.Local, Audience: h.store.Audience, Ending: h.tarpit.ending, Gate: h.gate})
	h.api = &api.API{
		Store:        relenting{store, h.observesByCall},
		Server:       apiServer{h},
		Prefix:       h.API,
		RefreshAfter: time.Duration(h.Interval) / 3,
		CrossOrigin:  crossOrigin,
	}
	return nil
}

// onAPI reports whether a path is the API's.
func (h *Handler) onAPI(path string) bool {
	rest, ok := strings.CutPrefix(path, h.API)
	return ok && h.api != nil && (rest == "" || rest[0] == '/')
}

// serveAPI answers a call of the guards API.
func (h *Handler) serveAPI(w http.ResponseWriter, r *http.Request) {
	w = h.answer(w, r)
	h.allowOrigin(w, r)
	if h.connected != nil {
		seen(r)
	}
	h.api.ServeHTTP(w, r)
}

// apiServer is a Handler as its API sees it.
type apiServer struct{ h *Handler }

// Caller implements api.Server.
func (s apiServer) Caller(r *http.Request) (api.Caller, error) {
	h := s.h
	repl := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	g := gate.Request{HTTP: r}
	repl.Map(func(key string) (any, bool) { // what mode may go by
		switch key {
		case "http.stream_guard.user":
			return g.User, true
		case "http.stream_guard.bucket":
			return bucket(g.User), true
		}
		return nil, false
	})
	h.fillWho(&g, r, repl)
	switch {
	case g.Invalid != nil:
		return api.Caller{}, g.Invalid
	case g.User == "":
		return api.Caller{}, problem.New(problem.MissingUser, "nobody is logged in")
	}
	if h.read.fallback != nil {
		g.Fallback = h.read.fallback(r, repl)
	}
	c := api.Caller{
		User:   g.User,
		Device: g.Device,
		Client: g.Client,
		Labels: g.Labels,
		Policy: g.Policy,
		Base:   apiBase(received(r).Path, r.URL.Path, h.API),
	}
	if h.modeOfRequest(r, repl) == gate.Observe {
		c.Policy = gate.Observed(c.Policy)
	}
	if id, named := h.gate.Named(&g); named {
		c.ID = &id
	}
	return c, nil
}

// RequestID implements api.Server.
func (apiServer) RequestID(r *http.Request) string { return requestID(r) }

// Failed implements api.Server.
func (s apiServer) Failed(r *http.Request, err error) { s.h.storeFailed(r, err) }

// Answered implements api.Server.
func (apiServer) Answered(endpoint, method string, status int, took time.Duration) {
	countAPI(endpoint, method, status, took)
}

// apiBase is the API's path as the client sees it, with what handle_path or
// uri strip_prefix have cut off.
func apiBase(original, path, mount string) string {
	prefix, _ := strings.CutSuffix(original, path)
	if prefix == original {
		return mount
	}
	return prefix + mount
}

var (
	_ api.Server = apiServer{}
	_ api.Store  = (*lease.Keeper)(nil)
	_ api.Store  = gate.Observer{}
)
