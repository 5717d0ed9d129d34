package caddymodule

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/net/http/httpguts"
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
	include(header, "Vary", []string{"Origin"})
	header.Del("Access-Control-Allow-Origin") // of a `header` in front
	header.Del("Access-Control-Allow-Credentials")
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
	include(header, "Access-Control-Expose-Headers", []string{"Location, Retry-After, RateLimit, RateLimit-Policy"})
}

// include adds to a field that is a list what it does not have yet.
func include(h http.Header, name string, lists []string) {
	for _, list := range lists {
		var missing []string
		for element := range strings.SplitSeq(list, ",") {
			if element = strings.TrimSpace(element); !httpguts.HeaderValuesContainsToken(h[name], element) {
				missing = append(missing, element)
			}
		}
		if missing != nil {
			h.Add(name, strings.Join(missing, ", "))
		}
	}
}
