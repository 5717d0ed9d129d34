package caddymodule

import (
	"net/http"
	"strings"
)

// makePrivate turns the response's Cache-Control (RFC 9111, section 5.2.2) into
// one for its receiver alone: shared caches would serve it to others without
// asking the gate. A browser's own cache is not concerned. Where there is none,
// a shared cache may still store what has a validator: then the caller adds
// private. Expires stays, for private goes before it.
func makePrivate(h http.Header) {
	dropTargeted(h)
	lines := h["Cache-Control"]
	if lines == nil || len(lines) == 1 && lines[0] == "private" {
		return
	}
	kept := []string{"private"}
	for _, line := range lines {
		for directive := range strings.SplitSeq(line, ",") {
			directive = strings.TrimSpace(directive)
			name, _, _ := strings.Cut(strings.ToLower(directive), "=")
			switch name {
			case "", "private", "public", "s-maxage", "proxy-revalidate":
			default:
				kept = append(kept, directive)
			}
		}
	}
	h["Cache-Control"] = []string{strings.Join(kept, ", ")}
}

// dropTargeted removes the fields that some caches prefer to Cache-Control: such
// caches stand in front of many users. By RFC 9213 the names end alike; the
// others are older.
func dropTargeted(h http.Header) {
	for name := range h {
		switch {
		case strings.HasSuffix(name, "-Cache-Control"),
			name == "Surrogate-Control", // Fastly, Varnish, Akamai
			name == "Edge-Control",      // Akamai
			name == "X-Accel-Expires":   // nginx
			delete(h, name)
		}
	}
}
