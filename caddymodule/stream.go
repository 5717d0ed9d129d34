package caddymodule

import (
	"fmt"
	"net/http"
	"path"
	"regexp"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/streamguard/streamguard/playback"
)

// streamNamer names the stream of a request; "" where it cannot.
type streamNamer func(r *http.Request, repl *caddy.Replacer) string

// parseStream reads the stream option.
func parseStream(s string) (streamNamer, error) {
	preset, arg, _ := strings.Cut(s, " ")
	switch {
	case preset == "dir":
		n, err := strconv.Atoi(arg)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("%q: dir wants how many directories, at least 1", s)
		}
		return dirs(n), nil
	case s == "name":
		return func(r *http.Request, _ *caddy.Replacer) string { return playback.Name(path.Clean(r.URL.Path)) }, nil
	case s == "cmcd":
		fallback := dirs(2)
		return func(r *http.Request, repl *caddy.Replacer) string {
			if id := playback.ReadCMCD(r).ContentID; id != "" {
				return id
			}
			return fallback(r, repl)
		}, nil
	case preset == "path_regexp":
		re, err := regexp.Compile(arg)
		if arg == "" {
			return nil, fmt.Errorf("%q: path_regexp wants a regular expression", s)
		}
		if err != nil {
			return nil, fmt.Errorf("%q: %w", s, err)
		}
		return func(r *http.Request, _ *caddy.Replacer) string { return playback.Match(path.Clean(r.URL.Path), re) }, nil
	case hasPlaceholder(s):
		return func(_ *http.Request, repl *caddy.Replacer) string { return repl.ReplaceAll(s, "") }, nil
	}
	return nil, fmt.Errorf("%q is not dir N, name, cmcd, path_regexp RE or a placeholder", s)
}

func dirs(n int) streamNamer {
	return func(r *http.Request, _ *caddy.Replacer) string { return playback.Dir(path.Clean(r.URL.Path), n) }
}
