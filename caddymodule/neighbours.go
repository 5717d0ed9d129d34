package caddymodule

import (
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
)

// neighbours are the gates of one server, of which two may count one request.
type neighbours struct {
	srv   *caddyhttp.Server
	gates atomic.Int32
}

var (
	neighbourhoods   = make(map[*caddyhttp.Server]*neighbours)
	neighbourhoodsMu sync.Mutex
)

// joinServer adds a gate to those of a server; nil where there is none.
func joinServer(srv *caddyhttp.Server) *neighbours {
	if srv == nil {
		return nil
	}
	neighbourhoodsMu.Lock()
	defer neighbourhoodsMu.Unlock()
	n := neighbourhoods[srv]
	if n == nil {
		n = &neighbours{srv: srv}
		neighbourhoods[srv] = n
	}
	n.gates.Add(1)
	return n
}

func (n *neighbours) leave() {
	if n == nil {
		return
	}
	neighbourhoodsMu.Lock()
	defer neighbourhoodsMu.Unlock()
	if n.gates.Add(-1) == 0 {
		delete(neighbourhoods, n.srv)
	}
}

// warn says, once, that another gate has counted a request before. All gates are
// there before the first request is.
func (n *neighbours) warn(h *Handler, r *http.Request, repl *caddy.Replacer) {
	if n == nil || n.gates.Load() < 2 {
		return
	}
	if _, counted := repl.Get("http.stream_guard.verdict"); counted {
		h.reports.once("two gates", func() {
			h.logger.Warn("two stream_guard count the same request: one of them is enough, or each needs a matcher of its own; said once until the config changes",
				zap.String("path", r.URL.Path), zap.String("user", h.User))
		})
	}
}
