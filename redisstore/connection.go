package redisstore

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// idleTime is how long a connection may be idle before it is closed instead of
// used: less than any usual balancer or firewall remembers it for. The price is
// one new connection for a call that comes after a quieter time.
const idleTime = 30 * time.Second

// keepAlive lets a firewall see a quiet connection. What ends TCP itself, as a
// proxy does, tells both sides or is found out by connection.doubt.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3}

// dialer makes all connections of a store: those to Sentinels and to each
// server of a Cluster, for calls and for subscriptions.
type dialer struct {
	net.Dialer
	tls     *tls.Config
	timeout time.Duration // of a call
	servers sync.Map      // by address, *server
}

// server is what the connections to one address know in common.
type server struct {
	asking sync.Mutex   // one connection at a time asks whether the server answers others
	lost   atomic.Int64 // the connections that were last heard before this moment are not used again
}

// dial implements redis.Options.Dialer.
func (d *dialer) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	raw, err := d.open(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	of, _ := d.servers.LoadOrStore(addr, new(server))
	c := &connection{Conn: raw, made: now(), server: of.(*server), doubtAfter: d.timeout / 10}
	c.heard.Store(c.made)
	c.answersAnother = func() bool { return d.answers(network, addr) }
	c.timer = time.AfterFunc(math.MaxInt64, c.doubt)
	return c, nil
}

func (d *dialer) open(ctx context.Context, network, addr string) (net.Conn, error) {
	raw, err := d.DialContext(ctx, network, addr)
	if err != nil || d.tls == nil {
		return raw, err
	}
	config := d.tls
	if config.ServerName == "" {
		config = config.Clone()
		config.ServerName, _, _ = net.SplitHostPort(addr)
	}
	// A server without TLS waits for the end of a line: the caller is to hear
	// more than that time is up.
	shaking, cancel := context.WithTimeout(ctx, d.Timeout*3/4)
	defer cancel()
	c := tls.Client(raw, config)
	if err := c.HandshakeContext(shaking); err != nil {
		raw.Close()
		if ctx.Err() == nil && shaking.Err() != nil {
			err = errNoHandshake
		}
		return nil, err
	}
	return c, nil
}

// answers reports whether a server says anything, be it an error, on a new
// connection.
func (d *dialer) answers(network, addr string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), d.timeout)
	defer cancel()
	c, err := d.open(ctx, network, addr)
	if err != nil {
		return false
	}
	defer c.Close()
	end, _ := ctx.Deadline()
	c.SetDeadline(end)
	io.WriteString(c, "*1\r\n$4\r\nPING\r\n")
	n, _ := c.Read(make([]byte, 1))
	return n > 0
}

// connection finds out by itself that a firewall or a balancer has forgotten
// it: where nothing is heard for a moment, but a new connection is answered, it
// fails, and the client repeats the call on another one. Where the server is
// slow the new connection is no faster, and nothing happens.
type connection struct {
	net.Conn
	server         *server
	answersAnother func() bool
	doubtAfter     time.Duration
	timer          *time.Timer // of doubt
	made           int64
	asked, heard   atomic.Int64 // when last
	silent         atomic.Bool
}

var (
	errSilent = fmt.Errorf("no answer on this connection, while the server answers on another: %w", io.ErrUnexpectedEOF) // which the client repeats
	errHungUp = errors.New("hung up before a word was said")

	errNoHandshake = errors.New("no answer to the TLS handshake")
)

// epoch makes moments of the monotonic clock fit into an atomic.Int64.
var epoch = time.Now()

func now() int64 { return int64(time.Since(epoch)) }

// Write implements net.Conn.
func (c *connection) Write(b []byte) (int, error) {
	c.asked.Store(now())
	c.timer.Reset(c.doubtAfter)
	n, err := c.Conn.Write(b)
	return n, c.hungUp(err)
}

// Read implements net.Conn.
func (c *connection) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	switch {
	case n > 0:
		c.timer.Stop()
		c.heard.Store(now())
	case c.silent.Load():
		err = errSilent
	default:
		err = c.hungUp(err)
	}
	return n, err
}

// hungUp tells apart a server that never said a word.
func (c *connection) hungUp(err error) error {
	if c.heard.Load() == c.made && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)) {
		return fmt.Errorf("%w: %w", errHungUp, err)
	}
	return err
}

// Close implements net.Conn.
func (c *connection) Close() error {
	c.timer.Stop()
	return c.Conn.Close()
}

// SyscallConn implements syscall.Conn, by which the client looks whether a
// connection from its pool is still good.
func (c *connection) SyscallConn() (syscall.RawConn, error) {
	if c.heard.Load() < c.server.lost.Load() {
		return nil, errSilent
	}
	if raw, ok := c.Conn.(syscall.Conn); ok {
		return raw.SyscallConn()
	}
	return unseen{}, nil
}

// unseen is what can be seen of a connection with TLS from outside.
type unseen struct{}

func (unseen) Control(func(uintptr)) error    { return nil }
func (unseen) Read(func(uintptr) bool) error  { return nil }
func (unseen) Write(func(uintptr) bool) error { return nil }

// doubt asks the server on a new connection, if this one has waited in vain.
func (c *connection) doubt() {
	c.server.asking.Lock()
	defer c.server.asking.Unlock()
	start, asked := now(), c.asked.Load()
	waits := func() bool { return c.asked.Load() == asked && c.heard.Load() < asked }
	if !waits() || start-asked < int64(c.doubtAfter) {
		return
	}
	if c.server.lost.Load() <= asked { // else another connection's doubt was right since then
		if !c.answersAnother() || !waits() {
			return
		}
		c.server.lost.Store(start)
	}
	c.silent.Store(true)
	c.Conn.Close()
}
