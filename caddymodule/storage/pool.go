// Package storage is where guards are kept, as Caddy knows it: the modules of
// the namespace stream_guard.stores, the pool that shares their stores between
// handlers and config loads, and what is measured of them.
package storage

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/streamguard/streamguard/audience"
	"github.com/streamguard/streamguard/gate"
	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/lease"
	"github.com/streamguard/streamguard/memstore"
)

// Namespace is that of the modules which are an Opener.
const Namespace = "stream_guard.stores"

// Opener is what a module in the Namespace is.
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

// pool has the stores in use, by key.
var pool = caddy.NewUsagePool()

// Pooled is a store with what this process knows of its guards. It holds
// nothing of any one config.
type Pooled struct {
	Name     string
	Keeper   *lease.Keeper
	Store    guard.Store        // behind the Keeper, not metered
	Local    *memstore.Store    // where the Keeper counts while the store is away
	Audience *audience.Audience // what handlers with mode observe have seen
	Memory   *gate.Memory       // what their gates remember

	key       any
	ttl       atomic.Int64 // the longest of the handlers'
	users     least
	lastError atomic.Pointer[Failure]
	warned    atomic.Int64 // the second of the last warning
	gone      atomic.Bool
}

// Failure is a moment when a store could not answer.
type Failure struct {
	At    time.Time
	Error string
}

// Open returns the store of a handler whose field holds the module's JSON. The
// handler has to Close it.
func Open(ctx caddy.Context, handler any, field string, ttl time.Duration, users LogUsers) (*Pooled, error) {
	mod, err := ctx.LoadModule(handler, field)
	if err != nil {
		return nil, err
	}
	opener, ok := mod.(Opener)
	if !ok {
		return nil, fmt.Errorf("%T is not a store", mod)
	}
	key := opener.Key()
	v, _, err := pool.LoadOrNew(key, func() (caddy.Destructor, error) {
		p := &Pooled{Name: opener.String(), Local: memstore.New(), Audience: audience.New(), Memory: gate.NewMemory(), key: key}
		if p.Store, err = opener.Open(sayAway(p.Name)); err != nil {
			p.Local.Close()
			return nil, err
		}
		p.Keeper = lease.New(meter(p.Store, p.failed, p.Audience, p.users.of), localStore{p.Local, p.users.of}, p.warn)
		return p, nil
	})
	if err != nil {
		return nil, err
	}
	p := v.(*Pooled)
	p.users.join(users)
	for longest := p.ttl.Load(); longest < int64(ttl) && !p.ttl.CompareAndSwap(longest, int64(ttl)); longest = p.ttl.Load() {
	}
	return p, nil
}

// Hold keeps the store open until what it returns is called. A store that was closed
// already stays closed.
func (p *Pooled) Hold() (release func()) {
	if _, there := pool.LoadOrStore(p.key, p); !there {
		p.Close()
		return func() {}
	}
	return func() { p.Close() }
}

// Close gives the store back. Those who still use it keep it open.
func (p *Pooled) Close() error {
	_, err := pool.Delete(p.key)
	return err
}

// Destruct implements caddy.Destructor.
func (p *Pooled) Destruct() error {
	if p.gone.Swap(true) {
		return nil
	}
	p.Keeper.Close()
	p.Local.Close()
	if c, ok := p.Store.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// InUse are the stores of the running config's handlers, by name.
func InUse() (all []*Pooled) {
	pool.Range(func(_, v any) bool {
		all = append(all, v.(*Pooled))
		return true
	})
	slices.SortFunc(all, func(a, b *Pooled) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// TTL is the longest that a handler of the store keeps a guard.
func (p *Pooled) TTL() time.Duration { return time.Duration(p.ttl.Load()) }

// LastFailure is when the store last could not answer; nil if it always has.
func (p *Pooled) LastFailure() *Failure { return p.lastError.Load() }

// failed keeps in mind that the store could not answer.
func (p *Pooled) failed(err error) { p.lastError.Store(&Failure{time.Now(), err.Error()}) }

// warn tells the log of the moment that the store cannot answer, once a second
// at most.
func (p *Pooled) warn(err error) {
	if now := time.Now().Unix(); p.warned.Swap(now) != now {
		storeLog().Warn("the store cannot answer", zap.String("store", p.Name), zap.Error(err))
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

// Names are the modules of the Namespace that this binary has.
func Names() (names []string) {
	for _, module := range caddy.GetModules(Namespace) {
		names = append(names, module.ID.Name())
	}
	return names
}

// Default is the JSON of the store that serves where none is configured.
var Default = json.RawMessage(`{"store":"memory"}`)
