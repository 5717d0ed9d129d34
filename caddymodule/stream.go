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

// parseStream reads the stream option: what names the stream of a request.
func parseStream(s string) (source, error) {
	preset, arg, _ := strings.Cut(s, " ")
	switch {
	case preset == "dir":
		n, err := strconv.Atoi(arg)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("%q: dir takes a number of directories, 1 or more, as in dir 2", s)
		}
		return dirs(n), nil
	case s == "name":
		return func(r *http.Request, _ *caddy.Replacer) string { return playback.Name(cleanPath(r)) }, nil
	case s == "cmcd":
		fallback := dirs(2)
		return func(r *http.Request, repl *caddy.Replacer) string {
			if id := playback.CMCDContentID(nil, r); len(id) > 0 {
				return string(id)
			}
			return fallback(r, repl)
		}, nil
	case preset == "path_regexp":
		re, err := regexp.Compile(arg)
		if arg == "" {
			return nil, fmt.Errorf("%q: path_regexp takes a regular expression", s)
		}
		if err != nil {
			return nil, fmt.Errorf("%q: %w", s, err)
		}
		return func(r *http.Request, _ *caddy.Replacer) string { return playback.Match(cleanPath(r), re) }, nil
	case hasPlaceholder(s):
		return newSource(s), nil
	}
	return nil, fmt.Errorf("%q is not dir N, name, cmcd, path_regexp RE or a placeholder", s)
}

func dirs(n int) source {
	return func(r *http.Request, _ *caddy.Replacer) string { return playback.Dir(cleanPath(r), n) }
}

// cleanPath is the request's path without what means nothing in it: a player
// does not send it, and another spelling is not another stream.
func cleanPath(r *http.Request) string {
	if p := r.URL.Path; !strings.Contains(p, "//") && !strings.Contains(p, "/.") {
		return p
	}
	return path.Clean(r.URL.Path)
}
