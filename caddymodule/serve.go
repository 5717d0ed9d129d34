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
	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/playback"
	"github.com/streamguard/streamguard/problem"
)

// ServeHTTP implements caddyhttp.MiddlewareHandler: it reads the request, begins
// its passage, and answers.
//
// The stack of a new connection is just large enough for what serves a file, and to
// make it larger costs as much as all else here. So functions that are under way while
// the next handler is have small frames.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	v, token, err := h.receive(w, r, next)
	if v == nil {
		return err
	}
	return h.deliver(w, r, next, v, token)
}

// receive answers what the origin is not to be asked for, and what is not the gate's. It
// returns a visit for what may pass, which is to be answered, and the token of its path.
func (h *Handler) receive(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) (_ *visit, token *guard.ID, _ error) {
	withoutTunnels(r.Header)
	h.putBack(r)
	id, tokened, cut := h.token(r)
	if h.onAPI(r.URL.Path) {
		if tokened {
			r.Header.Set("Stream-Guard-Id", id.String()) // to the API an explicit id like any other
		}
		h.serveAPI(w, r)
		return nil, nil, nil
	}
	kind := playback.Other // a request by another method is no viewer's: an encoder publishes by PUT
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		kind = h.read.kinds.Of(r.URL.Path)
	}
	switch {
	case r.Method == http.MethodOptions:
		return nil, nil, next.ServeHTTP(w, r)
	case kind == playback.Other && h.isAssetList(r, tokened):
		return nil, nil, h.serveAssets(w, r, next, id, tokened)
	case kind == playback.Other && cut:
		return nil, nil, h.plainly(w, r)
	case kind == playback.Other:
		return nil, nil, h.passOn(w, r, next)
	case kind == playback.Manifest && tokened:
		u := received(r)
		if first := playback.FirstTokenLocation(u.EscapedPath(), u.RawQuery); first != "" {
			return nil, nil, h.sendOn(w, r, first)
		}
	}
	v := &visit{users: h.logUsers, under: under{h, r, id}}
	if tokened {
		token = &v.under.token
	}
	v.request.Kind, v.request.Token = kind, token
	p, err := h.begin(v, r)
	switch {
	case err != nil && h.gate.OnError == gate.Refuse:
		return nil, nil, h.refuse(w, r, v, problem.Unavailable())
	case err != nil: // the fault is ours: the viewer is not to suffer for it
		return nil, nil, next.ServeHTTP(w, r)
	case p.Redirects:
		return nil, nil, h.redirect(w, r, p)
	case p.Refusal != nil && !h.mayBeList(&v.request, p):
		if p.Repeated {
			h.tarpit.hold(r.Context())
		}
		return nil, nil, h.refuse(w, r, v, p.Refusal)
	case p.Gone != nil:
		return nil, nil, caddyhttp.Error(499, p.Gone)
	case p.Word == gate.Passed && isTokened(r) && !h.gateBehind.Load(): // a request without a user under somebody's token
		return nil, nil, h.plainly(w, r)
	}
	return v, token, nil
}

// deliver has the origin answer what may pass.
func (h *Handler) deliver(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, v *visit, token *guard.ID) (err error) {
	if token != nil {
		v.handOn(r, token)
		v.word.under = &v.under
	}
	switch v.word.private = h.private; {
	case h.private || token != nil || v.passage.IsTrial():
		w = v.word.over(w, h.lowest(w, r))
	case h.connected != nil:
		w = v.word.over(w, nil)
	}
	conn, id := h.carry(r, v)
	if !v.passage.IsTrial() && h.connected == nil && v.request.Kind == playback.Manifest {
		return h.passCounted(w, r, next, v, token)
	}
	returned := false
	defer func() {
		v.passage.End(v.delivered(r, err, returned))
		h.connected.answered(r, v, conn, id)
	}()
	if v.request.Kind == playback.Media && r.Method == http.MethodGet {
		err = h.send(w, r, next, v)
	} else {
		err = h.passCounted(w, r, next, v, token)
	}
	returned = true
	return err
}

// passCounted hands a request that may pass to what is behind.
func (h *Handler) passCounted(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, v *visit, token *guard.ID) error {
	if v.request.Kind != playback.Manifest {
		return next.ServeHTTP(w, r)
	}
	err := h.serveManifest(w, r, next, v, token)
	if v.passage.Word == gate.Passed && !h.gateBehind.Load() {
		_, _, sent := playback.CutToken("/" + w.Header().Get("Location"))
		h.gateBehind.Store(sent)
	}
	return err
}

// delivered reports whether a request was answered with what it asked for. Who
// hung up before that may have been; who was hung up on was not.
func (v *visit) delivered(r *http.Request, err error, returned bool) bool {
	status := max(v.word.near.status, v.sender.status)
	if r.Context().Err() != nil {
		return true
	}
	return err == nil && status < http.StatusBadRequest && (returned || status != 0)
}

// mayBeList reports whether it is not known yet if the manifest that is refused is
// one: a list of titles is not.
func (h *Handler) mayBeList(g *gate.Request, p *gate.Passage) bool {
	if g.Kind != playback.Manifest || g.HTTP.Method != http.MethodGet || p.Refusal.ErrorCode != problem.ReachedMaxGuards || !playback.MayBeList(g.HTTP.URL.Path) {
		return false
	}
	_, known := h.gate.Said(g)
	return !known
}

// visit is what one request needs, in one piece.
type visit struct {
	request gate.Request
	passage *gate.Passage // nil before there is a decision
	users   storage.LogUsers
	word    lastWord
	sender  sender
	under   under
	handed  [2]string // values of header fields for gates behind
}

// tokenHandedOn tells a gate behind that the id in Stream-Guard-Id was a token in
// the path, so that it does not send the manifest to one again.
const tokenHandedOn = "Stream-Guard-Token"

// handOn tells what is behind of the token that was in the path.
func (v *visit) handOn(r *http.Request, token *guard.ID) {
	v.handed = [2]string{token.String(), "?1"}
	r.Header["Stream-Guard-Id"], r.Header[tokenHandedOn] = v.handed[:1:1], v.handed[1:]
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
	countDecision(&p.Decision, v.request.Mode)
	v.trace(r)
	if p.Unavailable != nil {
		h.storeFailed(r, p.Unavailable)
	}
	if p.Alternates {
		h.logger.Warn("two clients take turns under one token: perhaps a URL was passed on, which all who have it play as one",
			zap.String("request_id", requestID(r)), zap.String("path", r.URL.Path), zap.Object("stream_guard", v))
	}
	if p.SelfRefused {
		h.logger.Warn("a viewer is probably refused by himself: all that stands in the way began less than a minute ago on what may be the same client",
			zap.String("request_id", requestID(r)), zap.String("path", r.URL.Path), zap.Strings("in_the_way", p.Problem().GuardIDs()), zap.Object("stream_guard", v))
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

// redirect sends a manifest request to the URL of its playback.
func (h *Handler) redirect(w http.ResponseWriter, r *http.Request, p *gate.Passage) error {
	u := received(r)
	return h.sendTo(w, r, http.StatusFound, playback.TokenLocation(u.EscapedPath(), u.RawQuery, p.ID))
}
