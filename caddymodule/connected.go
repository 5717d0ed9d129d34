package caddymodule

import (
	"context"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"sync"
	"time"
	"weak"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/streamguard/streamguard/api"
	"github.com/streamguard/streamguard/caddymodule/storage"
	"github.com/streamguard/streamguard/connection"
	"github.com/streamguard/streamguard/gate"
	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/playback"
)

// connections are those of all servers of this process: what is known of them
// outlives configs. Each config has servers of its own, and the ones before close
// their connections; that says nothing of their clients.
var connections = connection.New(connection.After, countClosed)

func init() { connections.Stopping = caddy.Exiting }

func countClosed(hurried bool) {
	if hurried {
		closedHurried.Inc()
	} else {
		closedWaited.Inc()
	}
}

// connected is how a gate tells of its requests' connections.
type connected struct {
	registry *connection.Registry
	closer   connection.Closer
}

var (
	hooked   = make(map[weak.Pointer[caddyhttp.Server]]bool)
	hookedMu sync.Mutex
)

// hook has a server tell of its connections, once for as long as there is the server.
// HTTP/3 has no hooks: its requests have no connection.
func hook(srv *caddyhttp.Server) {
	hookedMu.Lock()
	defer hookedMu.Unlock()
	pointer := weak.Make(srv)
	if hooked[pointer] {
		return
	}
	hooked[pointer] = true
	runtime.AddCleanup(srv, func(pointer weak.Pointer[caddyhttp.Server]) {
		hookedMu.Lock()
		defer hookedMu.Unlock()
		delete(hooked, pointer)
	}, pointer)
	server := connections.Serve()
	srv.RegisterConnContext(func(ctx context.Context, c net.Conn) context.Context {
		return server.Accept(ctx, c, time.Duration(srv.IdleTimeout))
	})
	srv.RegisterConnState(server.State)
	srv.RegisterOnShutdown(server.End)
}

// carry is the moment when a request has been let in. It returns what carries it, if
// that is known, and the playback's id.
func (h *Handler) carry(r *http.Request, v *visit) (conn *connection.Conn, id guard.ID) {
	if v.passage.ID == (guard.ID{}) {
		return nil, id
	}
	id = v.passage.Guard()
	if h.connected == nil { // another gate of the store may heed closings
		connections.GoesOn(&connection.Playback{Closer: closerOf(h.store), ID: id})
		return nil, id
	}
	c, g := h.connected, &v.request
	conn = seen(r)
	c.registry.Carry(conn, &connection.Playback{Closer: c.closer, ID: id, User: g.User, Device: g.Device, Client: g.Client}, g.Kind == playback.Manifest)
	return conn, id
}

// answered is the moment when that request has been answered.
func (c *connected) answered(r *http.Request, v *visit, conn *connection.Conn, id guard.ID) {
	if conn == nil {
		return
	}
	p := &connection.Playback{Closer: c.closer, ID: id}
	if r.Context().Err() == nil {
		c.registry.Answered(conn, p, false, false)
		return
	}
	// A client may close its connection as soon as it has all, before the handler is done.
	length, err := strconv.ParseInt(v.word.near.Header().Get("Content-Length"), 10, 64)
	whole := err == nil && v.word.near.written >= length || r.Method == http.MethodHead
	c.registry.Answered(conn, p, !whole && !v.word.near.timedOut, err == nil && v.request.Token == nil)
}

// seen is the connection that a request came by; nil where it is not known. What
// comes through a proxy says nothing of the client's own.
func seen(r *http.Request) *connection.Conn {
	c := connection.From(r.Context())
	if c != nil && proxied(r) {
		c.Mute()
	}
	return c
}

func proxied(r *http.Request) bool {
	if r.Header["X-Forwarded-For"] != nil || r.Header["Forwarded"] != nil || r.Header["Via"] != nil {
		return true
	}
	trusted, _ := caddyhttp.GetVar(r.Context(), caddyhttp.TrustedProxyVarKey).(bool)
	return trusted
}

// explicit is the store of the API: its calls are requests of their playbacks too.
type explicit struct {
	gate.Observer
	*connected
}

// over puts that over the store of the API.
func (c *connected) over(o gate.Observer) api.Store {
	if c == nil {
		return o
	}
	return explicit{o, c}
}

// called notes what a call was about.
func (s explicit) called(ctx context.Context, c guard.Claim, v guard.Verdict, err error) {
	if err != nil || !v.Outcome.Pass() {
		return
	}
	p := connection.Playback{Closer: s.closer, ID: c.ID, User: c.User, Device: c.Device, Client: c.Client}
	conn := connection.From(ctx)
	s.registry.Carry(conn, &p, false)
	s.registry.Answered(conn, &p, false, false)
}

// Acquire implements guard.Store.
func (s explicit) Acquire(ctx context.Context, c guard.Claim, p guard.Policy) (guard.Verdict, error) {
	v, err := s.Observer.Acquire(ctx, c, p)
	if v.Guard.ID != (guard.ID{}) {
		c.ID = v.Guard.ID
	}
	s.called(ctx, c, v, err)
	return v, err
}

// Refresh implements guard.Store.
func (s explicit) Refresh(ctx context.Context, user string, id guard.ID, p guard.Policy) (guard.Verdict, error) {
	v, err := s.Observer.Refresh(ctx, user, id, p)
	s.called(ctx, guard.Claim{User: user, ID: id}, v, err)
	return v, err
}

// Keep implements api.Store.
func (s explicit) Keep(ctx context.Context, c guard.Claim, p guard.Policy) (guard.Verdict, error) {
	v, err := s.Observer.Keep(ctx, c, p)
	s.called(ctx, c, v, err)
	return v, err
}

// closerOf is who closes the guards of a store.
var closerOf = func(store *storage.Pooled) connection.Closer { return store.Keeper }
