package caddymodule

import (
	"fmt"
	"net/http"
	"runtime/debug"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/streamguard/streamguard/caddymodule/storage"
	"github.com/streamguard/streamguard/gate"
	"github.com/streamguard/streamguard/playback"
	"github.com/streamguard/streamguard/problem"
)

// ServeHTTP implements caddyhttp.MiddlewareHandler: it reads the request, begins
// its passage, and answers.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	withoutTunnels(r.Header)
	h.putBack(r)
	token, cut := h.token(r)
	if h.onAPI(r.URL.Path) {
		h.serveAPI(w, r, token)
		return nil
	}
	kind := playback.Other // a request by another method is no viewer's: an encoder publishes by PUT
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		kind = h.read.kinds.Of(r.URL.Path)
	}
	switch {
	case r.Method == http.MethodOptions:
		return next.ServeHTTP(w, r)
	case kind == playback.Other && cut:
		return h.plainly(w, r)
	case kind == playback.Other:
		return h.passOn(w, r, next)
	case kind == playback.Manifest && token != nil:
		u := received(r)
		if first := playback.FirstTokenLocation(u.EscapedPath(), u.RawQuery); first != "" {
			return h.sendOn(w, r, first)
		}
	}
	v := &visit{users: h.logUsers}
	v.request.Kind, v.request.Token = kind, token
	p, err := h.begin(v, r)
	switch {
	case err != nil && h.gate.OnError == gate.Refuse:
		return h.refuse(w, r, v, problem.Unavailable())
	case err != nil: // the fault is ours: the viewer is not to suffer for it
		return next.ServeHTTP(w, r)
	case p.Word == gate.Redirected:
		return h.redirect(w, r, p)
	case p.Refusal != nil:
		if p.Repeated {
			h.tarpit.hold(r.Context())
		}
		return h.refuse(w, r, v, p.Refusal)
	case p.Gone != nil:
		return caddyhttp.Error(499, p.Gone)
	case p.Word == gate.Passed && isTokened(r): // a request without a user under somebody's token: the origin does not know that path
		return h.plainly(w, r)
	}
	if h.private {
		v.word.private = true
		if token != nil {
			v.word.tokened = r
		}
		w = v.word.over(w, h.lowest(w, r))
	}
	if kind == playback.Manifest && token != nil {
		return h.serveManifest(w, r, next, *token)
	}
	return next.ServeHTTP(w, r)
}

// visit is what one request needs, in one piece.
type visit struct {
	request gate.Request
	passage *gate.Passage // nil before there is a decision
	users   storage.LogUsers
	word    lastWord
}

// begin decides about a request, and tells of it. Its error is a panic of our own.
func (h *Handler) begin(v *visit, r *http.Request) (_ *gate.Passage, err error) {
	defer func() { h.recovered(r, recover(), func(fault error) { err = fault }) }()
	repl := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	h.neighbours.warn(h, r, repl)
	v.attach(r, repl, h.logged)
	h.fill(&v.request, r, repl)
	if v.request.Kind == playback.Manifest && v.request.Token == nil {
		h.lookForCrowds(&v.request)
	}
	p := h.gate.Begin(r.Context(), &v.request)
	v.passage = p
	countDecision(&p.Decision)
	v.trace(r)
	if p.Unavailable != nil {
		h.storeFailed(r, p.Unavailable)
	}
	if p.Would != nil {
		p.Would.SetInstance(requestID(r))
		h.logRefusal("would have been refused", r, v, p.Would)
	}
	return p, nil
}

// recovered tells of a fault of the gate's own, once a minute with its stack, and
// has the request go on. An http.ErrAbortHandler passes as it is.
func (h *Handler) recovered(r *http.Request, panicked any, goOn func(fault error)) {
	switch panicked {
	case nil:
		return
	case http.ErrAbortHandler:
		panic(panicked)
	}
	panics.Inc()
	fault := fmt.Errorf("panic: %v", panicked)
	if aMinute.over() {
		h.logger.Error("the gate failed, and a request goes on without it; said once a minute",
			zap.String("request_id", requestID(r)), zap.Error(fault), zap.ByteString("stack", debug.Stack()))
	}
	goOn(fault)
}

// redirect sends a manifest request to a URL of its own.
func (h *Handler) redirect(w http.ResponseWriter, r *http.Request, p *gate.Passage) error {
	w = h.answer(w, r)
	h.allowOrigin(w, r)
	w.Header().Set("Cache-Control", "no-store")
	u := received(r)
	w.Header().Set("Location", playback.TokenLocation(u.EscapedPath(), u.RawQuery, p.ID))
	w.WriteHeader(http.StatusFound)
	return nil
}
