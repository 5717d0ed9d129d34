package caddymodule

import (
	"context"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/streamguard/streamguard/guard"
)

// tarpit holds back repeats of a refusal: some players ask again at once, up to
// 50 times a second, and no faster than they are answered.
type tarpit struct {
	places chan struct{} // one for each request held
	ending chan struct{} // closed when the server begins to shut down
}

// holdBack is how long a repeat waits for its answer.
var holdBack = guard.Paced(time.Second)

const maxHeld = 1000 // repeats that wait at once; one more is answered

func newTarpit(srv *caddyhttp.Server) *tarpit {
	t := &tarpit{places: make(chan struct{}, maxHeld), ending: make(chan struct{})}
	if srv != nil {
		srv.RegisterOnShutdown(sync.OnceFunc(func() { close(t.ending) }))
	}
	return t
}

// hold waits for a second, or until the client has gone or the server goes.
func (t *tarpit) hold(ctx context.Context) {
	select {
	case t.places <- struct{}{}:
		defer func() { <-t.places }()
	default:
		return
	}
	timer := time.NewTimer(holdBack)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	case <-t.ending:
	}
}
