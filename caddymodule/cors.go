package caddymodule

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode"
)

// checkOrigin refuses what no browser sends as Origin: it could never match.
func checkOrigin(origin string) error {
	if origin == "*" {
		return nil
	}
	u, err := url.Parse(origin)
	switch {
	case strings.HasSuffix(origin, ","):
		return fmt.Errorf("%q: origins are separated by spaces, without commas", origin)
	case err != nil || u.Scheme == "" || u.Host == "" || u.Scheme+"://"+u.Host != origin || strings.HasSuffix(origin, ":"):
		return fmt.Errorf("%q is neither * nor an origin (scheme, host and nothing else) like https://player.example.com", origin)
	case strings.Contains(origin, "*"):
		return fmt.Errorf("%q: origins are listed one by one, or * for all", origin)
	case origin != strings.ToLower(origin):
		return fmt.Errorf("%q: browsers send origins in lower case", origin)
	case strings.ContainsFunc(origin, func(r rune) bool { return r > unicode.MaxASCII }):
		return fmt.Errorf("%q: browsers send a name in ASCII (xn--…)", origin)
	case u.Scheme == "https" && u.Port() == "443" || u.Scheme == "http" && u.Port() == "80":
		return fmt.Errorf("%q: browsers leave out the default port", origin)
	}
	return nil
}

// crossOrigin is what pages of other origins than the configured ones may not
// do: nothing that changes guards, in the name of a viewer with a cookie.
func (h *Handler) crossOrigin() (*http.CrossOriginProtection, error) {
	if slices.Contains(h.CORS, "*") {
		return nil, nil
	}
	p := http.NewCrossOriginProtection()
	for _, origin := range h.CORS {
		if err := p.AddTrustedOrigin(origin); err != nil {
			return nil, fmt.Errorf("cors: %w", err)
		}
	}
	return p, nil
}

// allowOrigin lets the configured origins read the response (Fetch standard,
// CORS protocol). A listed origin may send credentials; * may not.
func (h *Handler) allowOrigin(w http.ResponseWriter, r *http.Request) {
	if len(h.CORS) == 0 {
		return
	}
	header := w.Header()
	header.Add("Vary", "Origin")
	origin := r.Header.Get("Origin")
	switch {
	case origin == "":
		return
	case slices.Contains(h.CORS, origin):
		header.Set("Access-Control-Allow-Origin", origin)
		header.Set("Access-Control-Allow-Credentials", "true")
	case slices.Contains(h.CORS, "*"):
		header.Set("Access-Control-Allow-Origin", "*")
	default:
		return
	}
	header.Set("Access-Control-Expose-Headers", "Location, Retry-After, RateLimit, RateLimit-Policy")
}
