package caddymodule

import (
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/streamguard/streamguard/playback"
)

// Kinds says what paths are.
type Kinds struct {
	// `manifest`, `media`, or `other` for what passes uncounted.
	Kind string `json:"kind"`
	// File extensions such as `.ts`, or paths as Caddy's path matcher has them:
	// `/live/*/seg`, `/ads/*`, `*.cmfv`. Capitals do not matter.
	Paths []string `json:"paths"`
}

func kindsOf(lines []Kinds) (playback.Kinds, error) {
	var rules []playback.KindRule
	for _, l := range lines {
		rules = append(rules, playback.KindRule{Kind: l.Kind, Paths: l.Paths})
	}
	return playback.NewKinds(rules)
}

// overlooked finds manifests among what is not counted: it looks at answers
// after they were given, for the first minutes of a config, or for as long as
// the gate only observes, and until it has told of one.
type overlooked struct {
	until time.Time // zero for as long as there is nothing to tell
	over  atomic.Bool
}

const overlookedFor = 10 * time.Minute

func newOverlooked(observes bool) *overlooked {
	if observes {
		return new(overlooked)
	}
	return &overlooked{until: time.Now().Add(overlookedFor)}
}

// passOn serves a request that is not counted.
func (h *Handler) passOn(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	looks, observes := h.overlooked.looks(), h.read.mayObserve() || h.byCall.Load() != nil
	if !looks && !observes {
		return next.ServeHTTP(w, r)
	}
	path := r.URL.Path // what is behind may change it
	err := next.ServeHTTP(w, r)
	if h.read.kinds.Knows(path) {
		return err
	}
	if kind := playback.Guess(path, w.Header().Get("Content-Type")); kind != "" && observes {
		h.gate.Audience.Uncounted(kind, path)
	}
	if looks && err == nil && isManifest(w.Header()) && h.overlooked.over.CompareAndSwap(false, true) {
		h.logger.Warn("a manifest is not counted: nothing says that its path is one; said once until the config changes",
			zap.String("request_id", requestID(r)), zap.String("path", path),
			zap.String("content_type", w.Header().Get("Content-Type")),
			zap.String("add", "kind manifest "+path+" (with * for what differs between titles)"))
	}
	return err
}

// looks reports whether manifests are still looked for.
func (o *overlooked) looks() bool {
	if !o.over.Load() && !o.until.IsZero() && time.Now().After(o.until) {
		o.over.Store(true)
	}
	return !o.over.Load()
}

// isManifest reports whether an answer is an HLS playlist, a DASH manifest or
// one of Smooth Streaming.
func isManifest(header http.Header) bool {
	mediaType, _, _ := strings.Cut(header.Get("Content-Type"), ";")
	return playback.IsManifestType(strings.ToLower(strings.TrimSpace(mediaType)))
}
