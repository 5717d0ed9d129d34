package playback

import (
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/streamguard/streamguard/guard"
)

// ExplicitID is the guard id that a request carries beside its path: the guard
// query parameter or the Stream-Guard-Id header. What is not a UUID is as if absent.
func ExplicitID(r *http.Request) (guard.ID, bool) {
	if raw, ok := rawQueryValue(r.URL.RawQuery, "guard"); ok {
		if s, err := url.QueryUnescape(raw); err == nil {
			if id, err := guard.ParseID(s); err == nil {
				return id, true
			}
		}
	}
	if s := r.Header["Stream-Guard-Id"]; len(s) > 0 {
		if id, err := guard.ParseID(s[0]); err == nil {
			return id, true
		}
	}
	return guard.ID{}, false
}

// SessionID is what AVPlayer says by itself: the X-Playback-Session-Id header.
func SessionID(r *http.Request) string {
	if s := r.Header["X-Playback-Session-Id"]; len(s) > 0 {
		return s[0]
	}
	return ""
}

// maxPrimaryID is how long the id of a film's playback is that an interstitial's
// requests name; a UUID has 36 bytes.
const maxPrimaryID = 64

// PrimaryID is the playback of the film, as its player names it, in a request for
// what interrupts the film: the _HLS_primary_id query parameter (RFC 8216bis,
// appendix D). It is "" where there is none, or one that is too long.
func PrimaryID(r *http.Request) string {
	raw, _ := rawQueryValue(r.URL.RawQuery, "_HLS_primary_id")
	id, err := url.QueryUnescape(raw)
	if err != nil || len(id) > maxPrimaryID {
		return ""
	}
	return id
}

// IsPrefetch reports whether a browser asks for what may never be shown (Prefetch
// and Speculation Rules: Sec-Purpose; Purpose and X-Moz of before).
func IsPrefetch(r *http.Request) bool {
	for _, name := range []string{"Sec-Purpose", "Purpose", "X-Moz"} {
		if values := r.Header[name]; len(values) > 0 && strings.HasPrefix(strings.ToLower(values[0]), "prefetch") {
			return true
		}
	}
	return false
}

// rawQueryValue is the first value of a key in a query, still escaped. The key
// itself is expected unescaped, as every client writes it.
func rawQueryValue(query, key string) (string, bool) {
	for query != "" {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		if len(pair) > len(key) && pair[len(key)] == '=' && pair[:len(key)] == key {
			return pair[len(key)+1:], true
		}
	}
	return "", false
}

// ClientHint is a hash of a client's address, of an IPv6 address the first 64 bits,
// and of its User-Agent; 0 where neither is known.
func ClientHint(address, userAgent string) guard.Client {
	if address == "" && userAgent == "" {
		return 0
	}
	if ip, err := netip.ParseAddr(address); err == nil && ip.Is6() && !ip.Is4In6() {
		network := ip.As16()
		return guard.NewClient(network[:8], userAgent)
	}
	return guard.NewClient(address, userAgent)
}
