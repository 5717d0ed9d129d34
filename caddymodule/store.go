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
	// io.Closer it is closed when the last handler is gone. onAway, which does
	// not block, is to hear when a server of the store stops answering, and
	// when it does again.
	Open(onAway func(server string, away bool)) (guard.Store, error)

	// String names the store for people, without its secrets: "memory", or
	// "redis 10.0.0.1:6379".
	String() string
}

// stores are the stores in use, by key.
var stores = caddy.NewUsagePool()

// pooled is a store with what this process knows of its guards. It holds
// nothing of any one config.
type pooled struct {
	name   string
	keeper *lease.Keeper
	store  guard.Store
	local  *memstore.Store
	ttl    atomic.Int64 // the longest of the handlers'

	lastError atomic.Pointer[LastError] // nil: it has always answered
	warned    atomic.Int64              // the second of the last warning
	tally     atomic.Pointer[tally]     // by handlers with mode observe; nil before the first
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

// failed keeps in mind that the store could not answer.
func (p *pooled) failed(err error) {
	p.lastError.Store(&LastError{At: time.Now(), Error: err.Error()})
}

// warn tells the log of the moment that the store cannot answer, once a second
// at most.
func (p *pooled) warn(err error) {
	if now := time.Now().Unix(); p.warned.Swap(now) != now {
		storeLog().Warn("the store cannot answer", zap.String("store", p.name), zap.Error(err))
	}
}

// sayAway tells the log and the events of the moment that a server has gone, or
// is back.
func sayAway(name string) func(server string, away bool) {
	return func(server string, away bool) {
		say, what, event := storeLog().Info, "a server of the store answers again", storeBack
		if away {
			say, what, event = storeLog().Warn, "a server of the store does not answer: it is called once a second only", storeLost
		}
		say(what, zap.String("store", name), zap.String("server", server))
		announce(event, func() map[string]any { return map[string]any{"store": name, "server": server} })
	}
}

// storeLog is the log of the moment: a store outlives configs and their loggers.
func storeLog() *zap.Logger { return caddy.Log().Named("http.handlers.stream_guard") }

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
		name := opener.String()
		s, err := opener.Open(sayAway(name))
		if err != nil {
			return nil, err
		}
		p := &pooled{name: name, store: s, local: memstore.New()}
		p.keeper = lease.New(observe(s, p.failed), localStore{p.local}, p.warn)
		return p, nil
	})
	if err != nil {
		return err
	}
	h.storeKey = key
	p := v.(*pooled)
	h.keeper, h.local = p.keeper, p.local
	if h.Mode == "observe" {
		p.tally.CompareAndSwap(nil, newTally())
		h.tally = p.tally.Load()
	}
	for ttl := p.ttl.Load(); ttl < int64(h.TTL) && !p.ttl.CompareAndSwap(ttl, int64(h.TTL)); ttl = p.ttl.Load() {
	}
	return nil
}
