package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"runtime"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	_ "github.com/streamguard/streamguard"
	"github.com/streamguard/streamguard/bench/viewer"
	"github.com/streamguard/streamguard/caddymodule/storage"
	"github.com/streamguard/streamguard/guard"
)

// Handler says what a request costs the handler and Caddy's own preparation of
// it, in nanoseconds and allocations.
type Handler struct {
	Leases              int
	CMCD                string
	Nanoseconds, Caddy  []float64
	Allocs, CaddyAllocs float64
}

// handler measures hits of leases, with CMCD that is a session id and nothing
// else, and with all that hls.js sends.
func handler() (any, error) {
	caddy.RegisterModule(willingStore{})
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	defer cancel()
	var gates []*gate
	for _, n := range []int{1000, *leases} {
		// Nothing falls due while it is measured: every request is a hit.
		config := fmt.Sprintf(`{"user": "{http.request.header.X-User-Id}", "interval": "1h", "store": {"store": "willing", "name": "%d"}}`, n)
		module, err := ctx.LoadModuleByID("http.handlers.stream_guard", json.RawMessage(config))
		if err != nil {
			return nil, err
		}
		short := &gate{
			Handler: Handler{Leases: n, CMCD: "session id"},
			handler: module.(caddyhttp.MiddlewareHandler),
			query:   viewer.AppendQuery,
			rng:     rand.New(rand.NewPCG(1, uint64(n))),
		}
		if err := short.fill(); err != nil {
			return nil, err
		}
		full := *short
		full.CMCD, full.query = "as hls.js sends it", viewer.AppendFullQuery
		gates = append(gates, short, &full)
	}
	runtime.GC()
	// All take turns, so that whatever else the machine does hits all alike.
	for range *pairs {
		for _, g := range gates {
			if err := g.measure(*duration); err != nil {
				return nil, err
			}
		}
	}
	result := make([]Handler, len(gates))
	for i, g := range gates {
		if err := g.count(); err != nil {
			return nil, err
		}
		result[i] = g.Handler
	}
	return result, nil
}

// batch is how many requests are made, then prepared, then handled at a time:
// enough to make reading the clock cheap, few enough that they are still in the
// cache, as a request is that has just been parsed.
const batch = 32

type gate struct {
	Handler
	handler caddyhttp.MiddlewareHandler
	query   func([]byte, uint64) []byte
	rng     *rand.Rand
}

var (
	server caddyhttp.Server
	// The handler has the header of an answer to make private.
	next = caddyhttp.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
		w.WriteHeader(http.StatusOK)
		return nil
	})
)

// fill admits all playbacks.
func (g *gate) fill() error {
	for n := range g.Leases {
		w := writer{}
		if err := g.handler.ServeHTTP(w, prepare(g.request(uint64(n)), w), next); err != nil {
			return err
		}
	}
	return nil
}

// measure times batches of random playbacks. Making up the requests is outside
// of what is timed.
func (g *gate) measure(d time.Duration) error {
	var inCaddy, inHandler time.Duration
	n := 0
	for start := time.Now(); time.Since(start) < d; n += batch {
		requests, writers := g.requests()
		t0 := time.Now()
		for i, r := range requests {
			requests[i] = prepare(r, writers[i])
		}
		t1 := time.Now()
		for i, r := range requests {
			if err := g.handler.ServeHTTP(writers[i], r, next); err != nil {
				return err
			}
		}
		inCaddy += t1.Sub(t0)
		inHandler += time.Since(t1)
	}
	g.Nanoseconds = append(g.Nanoseconds, float64(inHandler.Nanoseconds())/float64(n))
	g.Caddy = append(g.Caddy, float64(inCaddy.Nanoseconds())/float64(n))
	return nil
}

// count counts allocations of some batches.
func (g *gate) count() error {
	const batches = 200
	var before, prepared, handled runtime.MemStats
	for range batches {
		requests, writers := g.requests()
		runtime.ReadMemStats(&before)
		for i, r := range requests {
			requests[i] = prepare(r, writers[i])
		}
		runtime.ReadMemStats(&prepared)
		for i, r := range requests {
			if err := g.handler.ServeHTTP(writers[i], r, next); err != nil {
				return err
			}
		}
		runtime.ReadMemStats(&handled)
		g.CaddyAllocs += float64(prepared.Mallocs-before.Mallocs) / batch / batches
		g.Allocs += float64(handled.Mallocs-prepared.Mallocs) / batch / batches
	}
	return nil
}

func (g *gate) requests() (requests [batch]*http.Request, writers [batch]writer) {
	for i := range requests {
		requests[i] = g.request(g.rng.Uint64N(uint64(g.Leases)))
		writers[i] = writer{"Server": {"Caddy"}} // as Caddy begins every answer
	}
	return requests, writers
}

// request makes the request as net/http would have parsed it.
func (g *gate) request(n uint64) *http.Request {
	path, query := string(viewer.AppendPath(nil, "4k", n)), string(g.query(nil, n))
	return (&http.Request{
		Method:     http.MethodGet,
		URL:        &url.URL{Path: path, RawQuery: query},
		RequestURI: path + "?" + query,
		Proto:      "HTTP/1.1",
		ProtoMajor: 1,
		ProtoMinor: 1,
		Host:       "localhost",
		RemoteAddr: "127.0.0.1:12345",
		Header:     http.Header{"X-User-Id": {string(viewer.AppendUser(nil, n))}, "User-Agent": {"bench"}},
		Body:       http.NoBody,
	}).WithContext(context.Background())
}

// prepare is what Caddy does with every request before any handler sees it.
func prepare(r *http.Request, w http.ResponseWriter) *http.Request {
	return caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, &server)
}

// writer is the header of an answer that goes nowhere.
type writer http.Header

func (w writer) Header() http.Header       { return http.Header(w) }
func (writer) Write(b []byte) (int, error) { return len(b), nil }
func (writer) WriteHeader(int)             {}

// willingStore is willing as a Caddy module.
type willingStore struct {
	Name string `json:"name,omitempty"`
}

func (willingStore) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "stream_guard.stores.willing",
		New: func() caddy.Module { return new(willingStore) },
	}
}

func (s *willingStore) Key() any                                   { return *s }
func (*willingStore) Open(func(string, bool)) (guard.Store, error) { return willing{}, nil }

func (s *willingStore) String() string { return "willing " + s.Name }

var _ storage.Opener = (*willingStore)(nil)
