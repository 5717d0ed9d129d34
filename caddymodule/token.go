package caddymodule

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/playback"
)

func init() {
	caddy.RegisterModule(Token{})
	httpcaddyfile.RegisterHandlerDirective("stream_guard_token", func(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		return Token{}, Token{}.UnmarshalCaddyfile(h.Dispenser)
	})
	// In front of all that goes by a path.
	httpcaddyfile.RegisterDirectiveOrder("stream_guard_token", httpcaddyfile.Before, "tracing")
}

// Token takes path tokens out of a request's path, for stream_guard further on.
//
// stream_guard does so too, but behind whatever authenticates: matchers and
// login services in front of it see /~<id>/premium/7.m4s, which their rules on
// /premium/* do not know. Where access goes by path, this handler has to come
// first. It has no options.
type Token struct{}

// CaddyModule returns the Caddy module information.
func (Token) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.stream_guard_token",
		New: func() caddy.Module { return new(Token) },
	}
}

// UnmarshalCaddyfile reads
//
//	stream_guard_token
func (Token) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // stream_guard_token
	if d.NextArg() || d.NextBlock(d.Nesting()) {
		return d.Errf("stream_guard_token: takes no %q", d.Val())
	}
	return nil
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (Token) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if id, found := cutToken(r); found {
		r.SetPathValue(tokenInPath, id.String())
	}
	return next.ServeHTTP(w, r)
}

// tokenInPath is the path value that Token leaves a token in.
const tokenInPath = "stream_guard_token"

// token is the path token of a request. It is cut out of the path here, unless
// somebody in front has done so. That of nobody stays where it is: no gate has
// sent them there, and what is behind it may be for some users only. A preflight
// of the browser's own (OPTIONS) never has a user.
func (h *Handler) token(r *http.Request) (token guard.ID, found, cut bool) {
	if s := r.PathValue(tokenInPath); s != "" {
		if id, err := guard.ParseID(s); err == nil {
			return id, true, false
		}
	}
	if !strings.Contains(r.URL.Path, "/~") || r.Method != http.MethodOptions && h.read.user(r, r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)) == "" {
		return token, false, false
	}
	token, cut = cutToken(r)
	return token, cut, cut
}

// isTokened reports whether a request came with a token in its path that no gate in
// front has found to be somebody's.
func isTokened(r *http.Request) bool {
	_, _, found := playback.CutToken(received(r).EscapedPath())
	return found && len(r.Header[tokenHandedOn]) == 0
}

// plainly sends a request to its URL without any token.
func (h *Handler) plainly(w http.ResponseWriter, r *http.Request) error {
	u := received(r)
	return h.sendOn(w, r, playback.PlainLocation(u.EscapedPath(), u.RawQuery))
}

// sendOn sends a request on that has no use for all of its tokens: what the gate
// does not count goes without, for what has passed it by for its path sees it
// there, and a manifest with one, because each would be more to write into it.
func (h *Handler) sendOn(w http.ResponseWriter, r *http.Request, location string) error {
	return h.sendTo(w, r, http.StatusTemporaryRedirect, location)
}

// sendTo sends a request to another URL here. Pages of any origin may be sent:
// they can read what that answers only if it lets them, and the token is one that
// they could have made up.
func (h *Handler) sendTo(w http.ResponseWriter, r *http.Request, status int, location string) error {
	answer := h.answer(w, r)
	h.allowOrigin(answer, r)
	header := answer.Header()
	if origin := r.Header["Origin"]; len(origin) == 1 && header.Get("Access-Control-Allow-Origin") == "" {
		answer.word.cors = true
		include(header, "Vary", []string{"Origin"})
		header.Set("Access-Control-Allow-Origin", origin[0])
		header.Set("Access-Control-Allow-Credentials", "true")
	}
	header.Set("Cache-Control", "no-store")
	header.Set("Location", location)
	answer.WriteHeader(status)
	return nil
}

// under is a response to a request with a token in its path.
type under struct {
	handler *Handler
	request *http.Request
	token   guard.ID
}

// edit has the header fields mean what they would if there were no token in the
// path: the origin does not know of it.
func (u *under) edit(h http.Header) {
	if h["Set-Cookie"] != nil {
		keepReach(h, received(u.request).EscapedPath())
	}
	for _, field := range locations {
		for i, location := range h[field.name] {
			h[field.name][i] = field.edit(u.handler.read.kinds, location, place(u.request), u.token)
		}
	}
}

// locations are the fields that have a URL in them.
var locations = [...]struct {
	name string
	edit func(playback.Kinds, string, playback.Place, guard.ID) string
}{
	{"Location", playback.Kinds.LocationUnder},
	{"Content-Location", playback.Kinds.LocationUnder},
	{"Refresh", playback.Kinds.RefreshUnder},
}

// place is where a request was for.
func place(r *http.Request) playback.Place {
	u := received(r)
	return playback.Place{Path: u.EscapedPath(), Query: u.RawQuery, Hosts: hosts(r)}
}

// cutToken takes the path tokens out of the request's URL and returns the first.
func cutToken(r *http.Request) (token guard.ID, found bool) {
	if !strings.Contains(r.URL.Path, "/~") {
		return token, false
	}
	clean, token, found := playback.CutToken(r.URL.EscapedPath())
	if !found {
		return token, false
	}
	if clean == "" {
		clean = "/"
	}
	if path, err := url.PathUnescape(clean); err == nil {
		r.URL.Path, r.URL.RawPath = path, clean
		r.RequestURI = r.URL.RequestURI()
	}
	return token, true
}

var (
	_ caddyhttp.MiddlewareHandler = Token{}
	_ caddyfile.Unmarshaler       = Token{}
)
