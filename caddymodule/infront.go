package caddymodule

import (
	"bytes"
	"encoding/json"
	"slices"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// route is what matters here of a route in JSON.
type route struct {
	Match  []map[string]json.RawMessage `json:"match"`
	Handle []json.RawMessage            `json:"handle"`
}

// inFront finds a rule that stands in front of the gate which is being
// provisioned and does not know tokened URLs, nor the API: one that answers, or
// asks who somebody is, by files or paths, where no stream_guard_token has cut
// the tokens out before. It returns the matcher, "" if there is none. What is
// rewritten is not meant here: putBack sees to that.
func inFront(srv *caddyhttp.Server) string {
	if srv == nil {
		return ""
	}
	for _, r := range srv.Routes { // those that have been provisioned have no JSON any more
		if rule, gated := ruleInFront([]route{{Handle: r.HandlersRaw}}, ""); gated {
			return rule
		}
	}
	return ""
}

const tokenCut = "stream_guard_token"

// ruleInFront goes through routes in their order up to a gate. rule is what was
// found before; tokenCut if from there on no path has a token.
func ruleInFront(routes []route, rule string) (_ string, gated bool) {
	for _, r := range routes {
		for _, raw := range r.Handle {
			var handler struct {
				Handler string  `json:"handler"`
				Routes  []route `json:"routes"`
			}
			if json.Unmarshal(raw, &handler) != nil {
				return "", false
			}
			switch handler.Handler {
			case "stream_guard":
				if rule == tokenCut {
					rule = ""
				}
				return rule, true
			case "stream_guard_token":
				rule = tokenCut
			case "subroute":
				if rule, gated = ruleInFront(handler.Routes, rule); gated {
					return rule, true
				}
			case "rewrite": // of which try_files {path} =404 answers
				if rule == "" && slices.ContainsFunc(r.Match, func(set map[string]json.RawMessage) bool { return bytes.Contains(set["file"], []byte(`"=`)) }) {
					rule = "file"
				}
			case "authentication", "error", "reverse_proxy", "static_response":
				if rule == "" {
					rule = byFileOrPath(r.Match)
				}
			}
		}
	}
	return rule, false
}

// byFileOrPath is the matcher among these that goes by files or paths.
func byFileOrPath(sets []map[string]json.RawMessage) string {
	for _, set := range sets {
		for _, name := range []string{"file", "path", "path_regexp"} {
			if set[name] != nil {
				return name
			}
		}
		var not []map[string]json.RawMessage
		if set["not"] != nil && json.Unmarshal(set["not"], &not) == nil {
			if name := byFileOrPath(not); name != "" {
				return "not " + name
			}
		}
	}
	return ""
}
