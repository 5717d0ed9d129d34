package caddymodule

import (
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/streamguard/streamguard/problem"
)

// refuse leaves the answer to the site's error routes. Where none matches,
// Caddy would answer without a body: then it writes the problem itself.
func (h *Handler) refuse(w http.ResponseWriter, r *http.Request, v *visit, refusal *problem.Problem) error {
	refusal.SetInstance(requestID(r))
	v.word.private = false // a refusal says by itself that nobody is to keep it
	answer := h.answer(w, r)
	h.allowOrigin(answer, r)
	h.logRefusal("refused", r, v, refusal)
	err := caddyhttp.Error(refusal.Status, refusal)
	srv, _ := r.Context().Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if srv == nil || srv.Errors != nil && anyMatches(srv.Errors.Routes, srv.Errors.WithError(asReceived(r), err)) {
		refusal.SetHeader(answer.Header())
		answer.word.hear(answer.Header())
		return err
	}
	refusal.Write(answer)
	return nil
}

func (h *Handler) logRefusal(what string, r *http.Request, v *visit, refusal *problem.Problem) {
	empty := zap.Skip() // the placeholder that is, which is nothing for the client to know
	switch refusal.ErrorCode {
	case problem.MissingUser:
		empty = zap.String("empty", h.User)
	case problem.MissingDevice:
		empty = zap.String("empty", h.Device)
	}
	h.logger.Info(what,
		zap.String("request_id", requestID(r)),
		zap.String("code", string(refusal.ErrorCode)),
		zap.String("detail", refusal.Detail),
		empty,
		zap.Object("stream_guard", v))
}

// anyMatches reports whether a route for the request has something to run.
func anyMatches(routes caddyhttp.RouteList, r *http.Request) bool {
	for _, route := range routes {
		if matched, err := route.MatcherSets.AnyMatchWithError(r); err != nil || !matched {
			continue
		}
		for _, handler := range route.Handlers {
			sub, ok := handler.(*caddyhttp.Subroute)
			if !ok || anyMatches(sub.Routes, r) {
				return true
			}
		}
	}
	return false
}

// asReceived is the request before anything was rewritten, which is what error
// routes see.
func asReceived(r *http.Request) *http.Request {
	orig, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request)
	if !ok {
		return r
	}
	r = r.Clone(r.Context())
	r.Method, r.URL, r.RequestURI = orig.Method, orig.URL, orig.RequestURI
	return r
}

func (h *Handler) storeFailed(r *http.Request, err error) {
	h.logger.Warn("the store cannot answer", zap.String("request_id", requestID(r)), zap.Error(err))
}

// requestID is {http.request.uuid}, which from now on is in the access log too.
func requestID(r *http.Request) string {
	repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	if !ok {
		return ""
	}
	id, _ := repl.GetString("http.request.uuid")
	return id
}
