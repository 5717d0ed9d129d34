package api_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/streamguard/streamguard/guard"
)

// overPipe serves one connection without a network, so that its time is that
// of the test: what send writes, and what came back when the server closed it.
func overPipe(h http.Handler, send func(net.Conn)) (answer string) {
	client, conn := net.Pipe()
	l := pipe{conn: make(chan net.Conn, 1), closed: make(chan struct{})}
	l.conn <- conn
	server := &http.Server{Handler: h}
	var running sync.WaitGroup
	running.Go(func() { server.Serve(l) })
	running.Go(func() { send(client) })
	b, _ := io.ReadAll(client)
	client.Close()
	server.Close()
	running.Wait()
	return string(b)
}

// pipe is a net.Listener for one connection.
type pipe struct {
	conn   chan net.Conn
	closed chan struct{}
}

func (l pipe) Accept() (net.Conn, error) {
	select {
	case c := <-l.conn:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l pipe) Addr() net.Addr { return &net.UnixAddr{} }
func (l pipe) Close() error   { close(l.closed); return nil }

// A body that comes a byte a second is not waited for, and the store hears
// nothing of the call.
func TestSlowBodyIsGivenUp(t *testing.T) {
	id := guard.NewID("ann", "").String()
	for _, call := range []string{"POST /guards", "PATCH /guards/" + id, "POST /guards/cmcd"} {
		t.Run(call, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := open(t)
				f.API.Store = nil // a call would panic
				start := time.Now()
				answer := overPipe(f.API, func(c net.Conn) {
					fmt.Fprintf(c, "%s HTTP/1.1\r\nHost: h\r\nContent-Length: 4000\r\n\r\n", call)
					for err := error(nil); err == nil; time.Sleep(time.Second) {
						_, err = c.Write([]byte(" "))
					}
				})
				if took := time.Since(start); took > time.Minute {
					t.Errorf("given up after %v", took)
				}
				if !strings.Contains(answer, " 400 Bad Request") || !strings.Contains(answer, "INVALID_BODY") {
					t.Errorf("answered %q", answer)
				}
			})
		})
	}
}

// A body that nobody reads is not waited for either, as a server does before
// it answers.
func TestMissingBodyOfNoInterestIsGivenUp(t *testing.T) {
	id := guard.NewID("ann", "").String()
	for call, status := range map[string]string{"GET /guards": " 200 OK", "DELETE /guards/" + id: " 404 ", "PUT /guards": " 405 ", "GET /elsewhere": " 404 "} {
		t.Run(call, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := open(t)
				defer f.store.Close()
				start := time.Now()
				answer := overPipe(f.API, func(c net.Conn) {
					fmt.Fprintf(c, "%s HTTP/1.1\r\nHost: h\r\nContent-Length: 4000\r\n\r\n", call)
					time.AfterFunc(time.Hour, func() { c.Close() })
				})
				if took := time.Since(start); took > time.Minute || !strings.Contains(answer, status) {
					t.Errorf("after %v answered %q", took, answer)
				}
			})
		})
	}
}
