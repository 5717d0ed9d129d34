package caddymodule

import (
	"context"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// tarpit holds back repeats of a refusal: some players ask again at once, up to
// 50 times a second, and no faster than they are answered.
type tarpit struct {
	delay  time.Duration
	places chan struct{} // one for each request held
	ending chan struct{} // closed when the server begins to shut down
}

// Bounds of a tarpit: past maxHeld a repeat is answered at once.
const (
	maxTarpit = 30 * time.Second
	maxHeld   = 1000
)

func newTarpit(ctx caddy.Context, delay time.Duration) *tarpit {
	t := &tarpit{delay: delay, places: make(chan struct{}, maxHeld), ending: make(chan struct{})}
	if srv, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server); ok {
		srv.RegisterOnShutdown(sync.OnceFunc(func() { close(t.ending) }))
	}
	return t
}

// hold waits for the delay, or until the client has gone or the server goes.
func (t *tarpit) hold(ctx context.Context) {
	select {
	case t.places <- struct{}{}:
		defer func() { <-t.places }()
	default:
		return
	}
	timer := time.NewTimer(t.delay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	case <-t.ending:
	}
}
