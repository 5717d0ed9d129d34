package caddymodule

import (
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/lease"
	"github.com/streamguard/streamguard/memstore"
)

// Opener is what a module in the namespace stream_guard.stores is.
type Opener interface {
	// Key tells stores apart: handlers whose openers have equal keys share one
	// store, which outlives config reloads as long as one of them uses it. It
	// must be comparable and hold everything that Open depends on.
	Key() any

	// Open returns the store without connecting to anything. If it is an
	// io.Closer it is closed when the last handler is gone.
	Open() (guard.Store, error)
}

// stores are the stores in use, by key.
var stores = caddy.NewUsagePool()

// pooled is a store with what this process knows of its guards. It holds
// nothing of any one config.
type pooled struct {
	keeper *lease.Keeper
	store  guard.Store
	local  *memstore.Store
}

// Destruct implements caddy.Destructor.
func (p *pooled) Destruct() error {
	p.keeper.Close()
	p.local.Close()
	if c, ok := p.store.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// warnOfStore tells the log of the moment that a store cannot answer, once a
// second at most.
func warnOfStore() func(error) {
	var last atomic.Int64
	return func(err error) {
		if now := time.Now().Unix(); last.Swap(now) != now {
			caddy.Log().Named("http.handlers.stream_guard").Warn("the store cannot answer", zap.Error(err))
		}
	}
}

func (h *Handler) openStore(ctx caddy.Context) error {
	mod, err := ctx.LoadModule(h, "StoreRaw")
	if err != nil {
		return err
	}
	opener, ok := mod.(Opener)
	if !ok {
		return fmt.Errorf("%T is not a store", mod)
	}
	key := opener.Key()
	v, _, err := stores.LoadOrNew(key, func() (caddy.Destructor, error) {
		s, err := opener.Open()
		if err != nil {
			return nil, err
		}
		local := memstore.New()
		return &pooled{keeper: lease.New(s, local, warnOfStore()), store: s, local: local}, nil
	})
	if err != nil {
		return err
	}
	h.storeKey = key
	h.keeper = v.(*pooled).keeper
	return nil
}
