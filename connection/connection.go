// Package connection knows which connections of clients are open and which
// playbacks' requests they have carried. When a client has closed the last
// connection of a playback, or has left an endless answer, and asks for nothing more,
// the playback is over.
//
// A closing is a hint about somebody who says nothing. So whatever leaves it open
// whether the client has closed all its connections says nothing: HTTP/3 and
// proxies, whose connections are not seen; a connection that the server has closed;
// a client that makes a connection for each request; and a file that was cut
// short, since players skip in it. The room knows nothing of Caddy: a server tells
// of its connections by the hooks of net/http.
package connection

import (
	"cmp"
	"context"
	"net"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxCarried = 16          // playbacks of a connection; one more takes the place of the quietest
	justNow    = time.Second // a file that was cut short so long ago was cut by the closing
)

// Server is what is known of a server. Its methods are hooks of an http.Server.
type Server struct {
	registry *Registry
	ending   atomic.Bool
}

// Serve returns a server whose connections the registry is to know.
func (r *Registry) Serve() *Server { return &Server{registry: r} }

// End is for RegisterOnShutdown: from now on it is the server that closes.
func (s *Server) End() { s.ending.Store(true) }

// Conn is one connection, in the context of its requests.
type Conn struct {
	server *Server
	conn   net.Conn
	idle   time.Duration // after which the server closes it when it is idle; 0 is never

	mu      sync.Mutex
	carried []carried
	store   Closer // that the first request came to,
	user    string // and whose it was
	mute    bool   // it is not the client's own: what it does says nothing, and nothing is carried
	busy    int    // times that it came out of idle
	asked   int    // requests that it has carried
	running int    // that are being answered
	hungUp  bool   // the client left the last answer before its end
	waits   int64  // since when no request is under way; 0 while one is
	broken  bool   // by the server, since it took nothing more
	closed  bool
}

// carried is a playback on a connection.
type carried struct {
	*playback
	asked int64 // when it was last,
	busy  int   // and what Conn.busy was then
	cut   int64 // when a file of it was cut short that no manifest names
}

type contextKey struct{}

// From is the connection that a request with this context came by; nil where it is
// not known.
func From(ctx context.Context) *Conn {
	c, _ := ctx.Value(contextKey{}).(*Conn)
	return c
}

// Accept is for ConnContext. idle is the server's idle timeout.
func (s *Server) Accept(ctx context.Context, nc net.Conn, idle time.Duration) context.Context {
	if !isKey(nc) {
		return ctx
	}
	c := &Conn{server: s, conn: nc, idle: max(idle, 0)}
	s.registry.conns.Store(nc, c)
	return context.WithValue(ctx, contextKey{}, c)
}

// isKey reports whether a connection can be found again.
func isKey(nc net.Conn) bool {
	return reflect.TypeOf(nc).Kind() == reflect.Pointer || reflect.ValueOf(nc).Comparable()
}

// State is for ConnState.
func (s *Server) State(nc net.Conn, state http.ConnState) {
	if state == http.StateNew || !isKey(nc) {
		return
	}
	known, ok := s.registry.conns.Load(nc)
	if !ok {
		return
	}
	switch c := known.(*Conn); state {
	case http.StateActive:
		c.mu.Lock()
		c.waits, c.hungUp = 0, false
		c.busy++
		c.mu.Unlock()
	case http.StateIdle:
		c.mu.Lock()
		c.waits = s.registry.now()
		c.mu.Unlock()
	case http.StateHijacked, http.StateClosed:
		s.registry.conns.Delete(nc)
		c.end(state)
	}
}

// Mute says that the connection is a proxy's: what it does says nothing of a client.
func (c *Conn) Mute() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.muted()
}

// Break closes a connection that takes nothing more, whatever is under way on it. That is
// the server's doing, and says nothing of the client.
func (c *Conn) Break() {
	c.mu.Lock()
	c.broken = true
	c.mu.Unlock()
	c.conn.Close()
}

// muted has all that the connection has carried be hidden as well: other
// connections of theirs may be the same proxy's.
func (c *Conn) muted() {
	c.mute = true
	for i := range c.carried {
		of := &c.carried[i]
		c.server.registry.hide(of.key())
		c.server.registry.leave(of, closing{})
	}
	c.carried = nil
}

// Carry is the moment when a request of a playback has been let in. A nil
// connection is one that is not known.
func (r *Registry) Carry(c *Conn, p *Playback, manifest bool) {
	r.Asked(p.ID)
	if c == nil {
		r.hide(p.key())
		return
	}
	now := r.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	c.asked++
	c.running++
	if c.store == nil {
		c.store, c.user = p.Closer, strings.Clone(p.User)
	} else if c.store == p.Closer && c.user != p.User {
		c.muted()
	}
	if c.mute {
		r.hide(p.key())
	} else if of := c.find(p); of != nil {
		of.asked, of.busy = now, c.busy
		if manifest && !of.led.Load() {
			of.led.Store(true)
		}
	} else if !c.add(p, now, manifest) {
		r.hide(p.key())
	}
}

// Answered is the moment when a request that was carried has been answered. The
// client hung up if the request's context had ended before and no write had timed
// out. A file is an answer whose length was announced, under no token.
func (r *Registry) Answered(c *Conn, p *Playback, hungUp, file bool) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running--
	c.hungUp = hungUp
	if !hungUp || !file {
		return
	}
	if of := c.find(p); of != nil && !of.led.Load() {
		of.cut = r.now()
	} else if c.closed {
		r.cut(p.key())
	}
}

// find is a playback that the connection has carried before.
func (c *Conn) find(p *Playback) *carried {
	for i := range c.carried {
		if of := &c.carried[i]; of.ID == p.ID && of.Closer == p.Closer {
			return of
		}
	}
	return nil
}

// add notes one that it has not. Where it has carried many, the one that has been
// quiet for longest is let go: of that it says nothing any more.
func (c *Conn) add(p *Playback, now int64, manifest bool) bool {
	r := c.server.registry
	if len(c.carried) < maxCarried {
		known := r.join(p, manifest)
		if known != nil {
			c.carried = append(c.carried, carried{playback: known, asked: now, busy: c.busy})
		}
		return known != nil
	}
	quiet := &c.carried[0]
	for i := range c.carried {
		if of := &c.carried[i]; of.asked < quiet.asked {
			quiet = of
		}
	}
	if now-quiet.asked < int64(r.after) {
		return false
	}
	r.hide(quiet.key())
	r.leave(quiet, closing{})
	known := r.join(p, manifest)
	if known == nil {
		*quiet = c.carried[len(c.carried)-1]
		c.carried = c.carried[:len(c.carried)-1]
		return false
	}
	*quiet = carried{playback: known, asked: now, busy: c.busy}
	return true
}

// end is the end of the connection, whoever has ended it.
func (c *Conn) end(state http.ConnState) {
	r := c.server.registry
	now := r.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	said := nothing
	if state == http.StateClosed {
		said = c.said(now)
	}
	slices.SortFunc(c.carried, func(a, b carried) int { return cmp.Compare(a.asked, b.asked) })
	last := len(c.carried) - 1
	for i := range c.carried {
		switch of := &c.carried[i]; {
		case state == http.StateHijacked:
			r.hide(of.key())
			r.leave(of, closing{})
		case of.cut != 0 && now-of.cut <= int64(justNow):
			r.leave(of, closing{})
		case of.asked < c.carried[last].asked:
			r.leave(of, closing{c.server, said, true, c.carried[last].playback})
		case of.busy < c.busy && i > 0:
			r.leave(of, closing{c.server, said, true, c.carried[i-1].playback})
		default:
			r.leave(of, closing{c.server, said, of.busy < c.busy, nil})
		}
	}
	c.carried = nil
}

// closing is the end of a connection as a playback sees it that was carried there.
type closing struct {
	server *Server // whose connection it was
	says   saying
	others bool      // the connection was used for something else since,
	beside *playback // by this one, if it is known
}

// saying is what the end of a connection says of its client.
type saying uint8

const (
	nothing saying = iota // the server has closed it, perhaps
	little                // the client has closed it, but it may be one that makes a connection for each request
	gone                  // the client has closed it
)

// said is what the end of the connection says. HTTP/2 has the connection wait once more
// when it is closed while requests are under way.
func (c *Conn) said(now int64) saying {
	midway := c.hungUp || c.running > 0
	switch {
	case c.broken:
		return nothing
	case c.waits == 0 && !c.hungUp: // HTTP/1.1, before or after an answer's end
		return nothing
	case c.waits == 0:
		return gone
	case c.idle != 0 && now-c.waits >= int64(c.idle):
		return nothing
	case min(c.asked, c.busy) == 1 && !midway:
		return little
	}
	return gone
}
