package caddymodule

import (
	"fmt"
	"hash/maphash"
	"net/http"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/streamguard/streamguard/gate"
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

// crowds finds streams that are probably several titles: those under which
// playbacks that name nothing have asked for many manifests of different names.
type crowds struct {
	many int // manifests
	seed maphash.Seed

	mu sync.Mutex
	of map[string]*crowd // by stream; one whose manifests are many has been told of
}

// crowd is what has been asked for under one stream.
type crowd struct {
	first string
	names []uint64 // sums
}

const maxCrowds = 4096 // some 2 MB

// newCrowds is for playbacks that ask for all their manifests without saying
// who they are, or for the first only.
func newCrowds(all bool) *crowds {
	many := 8
	if all {
		many = 24 // a title may have so many renditions, languages and subtitles
	}
	return &crowds{many: many, seed: maphash.MakeSeed(), of: make(map[string]*crowd)}
}

// look tells, once for each stream, that this path makes its manifests too many,
// and which was the first.
func (c *crowds) look(stream, path string) (first string, crowded bool) {
	sum := maphash.String(c.seed, playback.Name(path))
	c.mu.Lock()
	defer c.mu.Unlock()
	found := c.of[stream]
	if found == nil {
		if len(c.of) == maxCrowds {
			for some := range c.of {
				delete(c.of, some)
				break
			}
		}
		found = &crowd{first: strings.Clone(path[:min(len(path), 256)])}
		c.of[stream] = found
	}
	if len(found.names) == c.many || slices.Contains(found.names, sum) {
		return "", false
	}
	found.names = append(found.names, sum)
	return found.first, len(found.names) == c.many
}

// lookForCrowds looks at a manifest that was asked for without a token.
func (h *Handler) lookForCrowds(g *gate.Request) {
	if g.User == "" || g.Invalid != nil {
		return
	}
	if _, named := h.gate.Named(g); named {
		return
	}
	path := g.HTTP.URL.Path
	first, crowded := h.crowds.look(g.Stream, path)
	if !crowded {
		return
	}
	crowdedStreams.Inc()
	h.gate.Audience.Crowded(g.Stream, first, path)
	h.reports.once("crowd", func() {
		h.logger.Warn("many different manifests are of one stream: if they are different titles, the option stream has to tell them apart; said once until the config changes",
			zap.String("stream", g.Stream), zap.Strings("paths", []string{first, path}), zap.String("option", "stream "+h.Stream))
	})
}
