package caddymodule

import (
	"net/http"
	"net/textproto"
	"strings"

	"github.com/caddyserver/caddy/v2"
)

// source is a text with placeholders, read once so that a request need not. It
// gives "" where a placeholder is unknown or empty.
type source func(*http.Request, *caddy.Replacer) string

func newSource(text string) source {
	if header := soleHeader(text); header != "" {
		return func(r *http.Request, _ *caddy.Replacer) string {
			if values := r.Header[header]; len(values) == 1 {
				return values[0]
			}
			return strings.Join(r.Header[header], ",") // as the placeholder has it
		}
	}
	if name, sole := soleKey(text); sole {
		return func(_ *http.Request, repl *caddy.Replacer) string {
			value, _ := repl.GetString(name)
			return value
		}
	}
	return func(_ *http.Request, repl *caddy.Replacer) string {
		value, err := repl.ReplaceOrErr(text, true, true)
		if err != nil {
			return ""
		}
		return value
	}
}

// soleHeader is the name of a header whose placeholder a text is, "" of any other text.
func soleHeader(text string) string {
	key, _ := soleKey(text)
	name, _ := strings.CutPrefix(key, "http.request.header.")
	if name == key {
		return ""
	}
	return textproto.CanonicalMIMEHeaderKey(name)
}

// soleKey is the key of a text that is one placeholder and nothing else.
func soleKey(text string) (string, bool) {
	key, opened := strings.CutPrefix(text, "{")
	key, closed := strings.CutSuffix(key, "}")
	if !opened || !closed || strings.ContainsAny(key, `{}\`) {
		return "", false
	}
	return key, true
}
