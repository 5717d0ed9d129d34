package caddymodule

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"reflect"
	"slices"
	"sync"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/headers"
	"go.uber.org/zap"
)

// lastWord is what the gate says in the header fields of one response.
//
// It is said twice: where the gate stands, for what caches within this Caddy,
// and below all other writers of the request, because a deferred `header`
// changes the fields only when they are on their way out.
type lastWord struct {
	private   bool        // shared caches must not keep the response
	under     *under      // the token that the response is under, if any
	cors      bool        // the gate decides which origins may read it
	said      http.Header // fields of the gate's own answer; one that is nil must not be there
	near, far speaker
	value     [1]string // of Cache-Control where there was none
}

// over puts the word's writers above and below w, and returns the upper one.
func (l *lastWord) over(w http.ResponseWriter, lowest *caddyhttp.ResponseWriterWrapper) *speaker {
	l.near.word, l.near.ResponseWriter = l, w
	if lowest != nil {
		l.far.word, l.far.ResponseWriter = l, lowest.ResponseWriter
		lowest.ResponseWriter = &l.far
	}
	return &l.near
}

// answer returns the writer of an answer of the gate's own.
func (h *Handler) answer(w http.ResponseWriter, r *http.Request) *speaker {
	l := &lastWord{cors: len(h.CORS) > 0}
	l.near.own = true
	return l.over(w, h.lowest(w, r))
}

// ownFields are those of the gate's own answers that nobody else may change.
var ownFields = []string{
	"Access-Control-Allow-Headers", "Access-Control-Allow-Methods", "Access-Control-Max-Age",
	"Allow", "Cache-Control", "Location", "Ratelimit", "Ratelimit-Policy", "Retry-After",
}

// hear remembers the fields of the gate's own answer.
func (l *lastWord) hear(h http.Header) {
	dropTargeted(h)
	l.said = make(http.Header)
	for _, name := range ownFields {
		if values := h[name]; values != nil {
			l.said[name] = slices.Clone(values) // header replaces within values
		}
	}
	if l.cors {
		for _, name := range []string{"Access-Control-Allow-Credentials", "Access-Control-Allow-Origin", "Access-Control-Expose-Headers", "Vary"} {
			l.said[name] = slices.Clone(h[name])
		}
	}
}

// speak writes the word into the header.
func (l *lastWord) speak(h http.Header) {
	if l.under != nil {
		l.under.edit(h)
	}
	for name, values := range l.said {
		switch {
		case name == "Vary" || name == "Access-Control-Expose-Headers":
			include(h, name, values)
		case values == nil:
			delete(h, name)
		default:
			h[name] = values
		}
	}
	if l.said != nil {
		dropTargeted(h)
	} else if l.private {
		if makePrivate(h); h["Cache-Control"] == nil {
			l.value[0] = "private"
			h["Cache-Control"] = l.value[:]
		}
	}
}

// speaker is a writer that says the word when the header is written.
type speaker struct {
	caddyhttp.ResponseWriterWrapper
	word        *lastWord
	own         bool // what is written is the gate's own answer
	wroteHeader bool
	status      int // 0 before there is one
	written     int64
	timedOut    bool // a write, because the client did not read
}

func (s *speaker) WriteHeader(status int) {
	if !s.wroteHeader && (status >= 200 || status == http.StatusSwitchingProtocols) {
		s.wroteHeader, s.status = true, status
		if s.own {
			s.word.hear(s.Header())
		} else {
			s.word.speak(s.Header())
		}
	}
	s.ResponseWriter.WriteHeader(status)
}

func (s *speaker) Write(b []byte) (int, error) {
	if !s.wroteHeader {
		s.WriteHeader(http.StatusOK)
	}
	n, err := s.ResponseWriter.Write(b)
	return n, s.wrote(int64(n), err)
}

// wrote keeps in mind how a write has ended.
func (s *speaker) wrote(n int64, err error) error {
	s.written += n
	s.timedOut = s.timedOut || err != nil && errors.Is(err, os.ErrDeadlineExceeded)
	return err
}

// ReadFrom lets the kernel copy files.
func (s *speaker) ReadFrom(r io.Reader) (int64, error) {
	if !s.wroteHeader {
		s.WriteHeader(http.StatusOK)
	}
	n, err := s.ResponseWriterWrapper.ReadFrom(r)
	return n, s.wrote(n, err)
}

// FlushError is what http.ResponseController flushes with.
func (s *speaker) FlushError() error {
	if !s.wroteHeader {
		s.WriteHeader(http.StatusOK)
	}
	return s.wrote(0, http.NewResponseController(s.ResponseWriter).Flush())
}

// lowest is the writer of the request below which the gate's can be placed: the
// server's own, which error routes write to as well, or else the lowest of those
// above the connection; nil if there is none.
func (h *Handler) lowest(w http.ResponseWriter, r *http.Request) (lowest *caddyhttp.ResponseWriterWrapper) {
	if h.idleWriter {
		if _, idle := caddyhttp.IdleTimeoutsFromContext(r.Context()); idle != nil {
			return idle.ResponseWriterWrapper
		}
	}
	for ; w != nil; w = unwrap(w) {
		if wrapper := wrapperOf(w); wrapper != nil {
			lowest = wrapper
		}
	}
	return lowest
}

// unwrap is the writer below another, nil below the server's own.
func unwrap(w http.ResponseWriter) http.ResponseWriter {
	if u, ok := w.(interface{ Unwrap() http.ResponseWriter }); ok {
		return u.Unwrap()
	}
	return nil
}

// wrapperOf is the ResponseWriterWrapper that w is, or that it embeds.
func wrapperOf(w http.ResponseWriter) *caddyhttp.ResponseWriterWrapper {
	if wrapper, ok := w.(*caddyhttp.ResponseWriterWrapper); ok {
		return wrapper
	}
	v := reflect.ValueOf(w)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		return nil
	}
	field, ok := v.Elem().Type().FieldByName("ResponseWriterWrapper")
	if !ok || len(field.Index) > 1 {
		return nil
	}
	embedded := v.Elem().FieldByIndex(field.Index)
	if embedded.Kind() == reflect.Struct {
		embedded = embedded.Addr()
	}
	wrapper, _ := embedded.Interface().(*caddyhttp.ResponseWriterWrapper)
	return wrapper
}

// provisionLastWord finds out whether the gate has the last word here.
func (h *Handler) provisionLastWord(ctx caddy.Context) {
	srv, _ := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	h.idleWriter = srv != nil && srv.WriteIdleTimeout >= 0 // of 0 Caddy makes its default, later
	warnOfHeader(ctx.Logger(), srv, undeferred())
}

// warnOfHeader warns where `header` has the last word.
func warnOfHeader(logger *zap.Logger, srv *caddyhttp.Server, undeferred bool) {
	const instead = "; written with ?, as in `header ?Cache-Control`, they leave alone what is set"
	switch {
	case !undeferred:
		logger.Warn("the fields of a deferred header directive replace what the gate says to caches and pages of other origins" + instead)
	case srv != nil && srv.Errors != nil && srv.WriteIdleTimeout < 0:
		logger.Warn("without the timeout write_idle, the fields of a header directive in handle_errors replace what the gate says of a refusal" + instead)
	}
}

// undeferred reports whether the gate has the last word in front of this Caddy's
// own deferred `header`.
var undeferred = sync.OnceValue(func() bool {
	return outlasts(headers.Handler{Response: &headers.RespHeaderOps{
		Deferred:  true,
		HeaderOps: &headers.HeaderOps{Set: http.Header{"Cache-Control": {"public"}}},
	}})
})

// outlasts reports whether the gate's word stands behind a handler.
func outlasts(handler caddyhttp.MiddlewareHandler) bool {
	connection := nowhere{}
	r := new(http.Request).WithContext(context.WithValue(context.Background(), caddy.ReplacerCtxKey, caddy.NewReplacer()))
	err := handler.ServeHTTP(connection, r, caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		l := &lastWord{private: true}
		l.over(w, new(Handler).lowest(w, r)).WriteHeader(http.StatusOK)
		return nil
	}))
	return err == nil && http.Header(connection).Get("Cache-Control") == "private"
}

// nowhere is the header of a response of which nobody reads the rest.
type nowhere http.Header

func (n nowhere) Header() http.Header         { return http.Header(n) }
func (n nowhere) Write(b []byte) (int, error) { return len(b), nil }
func (n nowhere) WriteHeader(int)             {}
func (n nowhere) Flush()                      {}
