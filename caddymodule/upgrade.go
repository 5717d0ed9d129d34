package caddymodule

import (
	"net/http"
	"slices"
	"strings"
)

// withoutTunnels takes from a request the offers to go on, on this connection,
// with another kind of HTTP: an origin that accepts one would answer all further
// requests past the gate. Other protocols, such as WebSocket, carry none.
func withoutTunnels(h http.Header) {
	if h["Upgrade"] == nil && h["Http2-Settings"] == nil {
		return
	}
	delete(h, "Http2-Settings")
	keep(h, "Upgrade", func(protocol string) bool {
		return !slices.ContainsFunc([]string{"h2", "http", "spdy", "tls"}, func(kind string) bool { return strings.HasPrefix(protocol, kind) })
	})
	keep(h, "Connection", func(field string) bool {
		return field != "http2-settings" && (field != "upgrade" || h["Upgrade"] != nil)
	})
}

// keep leaves in a field that is a list the elements that are wanted, which it
// tells by their lower case.
func keep(h http.Header, name string, wanted func(element string) bool) {
	var kept []string
	for _, line := range h[name] {
		for element := range strings.SplitSeq(line, ",") {
			if element = strings.TrimSpace(element); element != "" && wanted(strings.ToLower(element)) {
				kept = append(kept, element)
			}
		}
	}
	if kept == nil {
		delete(h, name)
		return
	}
	h[name] = []string{strings.Join(kept, ", ")}
}
