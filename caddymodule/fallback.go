package caddymodule

import (
	"net/http"
	"strings"

	"go.uber.org/zap"

	"github.com/streamguard/streamguard/playback"
)

// putBack gives a request its own path back where a fallback page in front of
// the gate has taken it (try_files {path} /index.html): no file has the path of
// the API, or one with a token in it.
func (h *Handler) putBack(r *http.Request) {
	orig := received(r)
	if orig.Path == r.URL.Path || r.PathValue(tokenInPath) != "" || h.onAPI(r.URL.Path) || h.read.kinds.Of(r.URL.Path) != playback.Other {
		return
	}
	switch {
	case h.onAPI(orig.Path):
	case !strings.Contains(orig.Path, "/~") || strings.Contains(r.URL.Path, "/~"):
		return
	default:
		clean, _, found := playback.CutToken(orig.EscapedPath())
		if !found || h.read.kinds.Of(clean) == playback.Other {
			return
		}
	}
	h.reports.once("fallback", func() {
		h.logger.Warn("a rewrite in front of stream_guard, such as try_files, takes paths that only stream_guard knows: they are put back as the client sent them, "+
			"with what handle_path or uri have cut off; stream_guard_token as the site's first directive spares that; said once until the config changes",
			zap.String("path", orig.Path), zap.String("rewritten", r.URL.Path))
	})
	u := *orig
	r.URL, r.RequestURI = &u, u.RequestURI()
}
