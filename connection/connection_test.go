package connection

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/streamguard/streamguard/guard"
)

// world is a server and its clients, in virtual time, on connections that are pipes.
type world struct {
	t        *testing.T
	registry *Registry
	server   *http.Server
	mine     *Server
	dialed   chan net.Conn
	start    time.Time
	held     atomic.Int64 // stores that endings have not given back

	mu     sync.Mutex
	closed []string      // ids and the seconds after which their guards were closed
	leave  []string      // playbacks of which other nodes were told
	back   []string      // playbacks that are
	hangs  chan struct{} // the store answers when it is closed; nil: at once
	stays  bool          // the store closes nothing
}

// HangUp implements Closer.
func (w *world) HangUp(_ context.Context, user string, id guard.ID) (bool, error) {
	at := time.Since(w.start).Truncate(100 * time.Millisecond)
	if w.hangs != nil {
		<-w.hangs
	}
	if w.stays {
		return false, nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = append(w.closed, fmt.Sprintf("%s %s %v", user, string(id[:1]), at))
	return true, nil
}

func (w *world) Leaves(id guard.ID, in time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.leave = append(w.leave, fmt.Sprintf("%s in %v", id[:1], in))
}

func (w *world) IsBack(id guard.ID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.back = append(w.back, string(id[:1]))
}

const idle = time.Minute

func withWorld(t *testing.T, test func(*world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, registry: New(After, nil), dialed: make(chan net.Conn), start: time.Now()}
		w.serve(idle)
		test(w)
		w.server.Close()
		w.settle()
		synctest.Wait()
		w.registry.conns.Range(func(nc, _ any) bool {
			t.Errorf("%v is remembered after all connections are closed", nc)
			return true
		})
		if w.registry.known != 0 || len(w.registry.playbacks) != 0 || len(w.registry.leavers) != 0 || w.registry.armed || w.held.Load() != 0 {
			t.Errorf("of %d known, %d playbacks and %d clients are left, and %d stores", w.registry.known, len(w.registry.playbacks), len(w.registry.leavers), w.held.Load())
		}
	})
}

// serve begins a server, as each config does; the one before shuts down.
func (w *world) serve(idleTimeout time.Duration) {
	if before := w.server; before != nil {
		defer func() {
			if err := before.Shutdown(w.t.Context()); err != nil {
				w.t.Error(err)
			}
		}()
	}
	mine := w.registry.Serve()
	w.mine = mine
	w.server = &http.Server{
		Handler:     http.HandlerFunc(w.answer),
		IdleTimeout: idleTimeout,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return mine.Accept(ctx, c, idleTimeout)
		},
		ConnState: mine.State,
		Protocols: new(http.Protocols),
	}
	w.server.Protocols.SetHTTP1(true)
	w.server.Protocols.SetUnencryptedHTTP2(true)
	w.server.RegisterOnShutdown(mine.End)
	go w.server.Serve(&listener{w.dialed, make(chan struct{}), new(sync.Once)})
	synctest.Wait()
}

type listener struct {
	dialed chan net.Conn
	done   chan struct{}
	once   *sync.Once
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.dialed:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}
func (l *listener) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *listener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

// answer serves /<playback>/<kind>: a manifest, a segment, a file that nothing leads
// to, an endless stream, or an image, which is no playback's.
func (w *world) answer(rw http.ResponseWriter, r *http.Request) {
	name, kind, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	if kind == "image" {
		rw.Write(make([]byte, 1<<20))
		return
	}
	p := &Playback{Closer: w, ID: guard.ID{name[0]}, User: r.Header.Get("User"), Client: 7}
	c := From(r.Context())
	if c != nil && r.Header.Get("Via") != "" {
		c.Mute()
	}
	w.registry.Carry(c, p, kind == "manifest")
	var failed error
	defer func() {
		timedOut := errors.Is(failed, os.ErrDeadlineExceeded)
		w.registry.Answered(c, p, r.Context().Err() != nil && !timedOut, kind == "file")
	}()
	if kind == "endless" || kind == "file" || kind == "long" {
		if kind == "file" {
			rw.Header().Set("Content-Length", "1000000")
		}
		for failed == nil && r.Context().Err() == nil {
			http.NewResponseController(rw).SetWriteDeadline(time.Now().Add(20 * time.Second))
			if _, failed = rw.Write(make([]byte, 8192)); failed == nil {
				failed = http.NewResponseController(rw).Flush()
			}
			select {
			case <-time.After(100 * time.Millisecond):
			case <-r.Context().Done():
			}
		}
		return
	}
	io.WriteString(rw, "media")
}

// settle waits until all that is over has been closed.
func (w *world) settle() { time.Sleep(After + time.Second) }

// expect says what was closed by now: ids and times.
func (w *world) expect(want ...string) {
	w.t.Helper()
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	slices.Sort(w.closed)
	if got := strings.Join(w.closed, ", "); got != strings.Join(want, ", ") {
		w.t.Errorf("closed: %q, want %q", got, strings.Join(want, ", "))
	}
	w.closed = nil
}

// client has connections of its own.
type client struct {
	*http.Transport
	w     *world
	user  string
	via   string
	conns []net.Conn
}

func (w *world) client(more ...func(*http.Transport)) *client {
	c := &client{w: w, user: "u"}
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		here, there := net.Pipe()
		w.mu.Lock()
		c.conns = append(c.conns, here)
		w.mu.Unlock()
		select {
		case w.dialed <- there:
			return here, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}}
	for _, change := range more {
		change(tr)
	}
	c.Transport = tr
	return c
}

func http2(tr *http.Transport) {
	tr.Protocols = new(http.Protocols)
	tr.Protocols.SetUnencryptedHTTP2(true)
}

// open asks, and returns what hangs up.
func (c *client) open(path string) (body io.ReadCloser) {
	c.w.t.Helper()
	r, err := http.NewRequestWithContext(c.w.t.Context(), "GET", "http://server/"+path, nil)
	if err != nil {
		c.w.t.Fatal(err)
	}
	r.Header.Set("User", c.user)
	if c.via != "" {
		r.Header.Set("Via", c.via)
	}
	resp, err := c.RoundTrip(r)
	if err != nil {
		c.w.t.Fatalf("%s: %v", path, err)
	}
	return resp.Body
}

// get asks and reads all.
func (c *client) get(paths ...string) {
	c.w.t.Helper()
	for _, path := range paths {
		body := c.open(path)
		if _, err := io.ReadAll(body); err != nil {
			c.w.t.Fatalf("%s: %v", path, err)
		}
		body.Close()
		synctest.Wait()
	}
}

func TestAPlaybackIsOverWhenItsClientHasClosedItsConnections(t *testing.T) {
	withWorld(t, func(w *world) {
		c := w.client()
		c.get("a/manifest", "a/1", "a/2")
		time.Sleep(30 * time.Second)
		c.CloseIdleConnections()
		time.Sleep(After - time.Millisecond)
		w.expect()
		time.Sleep(time.Millisecond)
		w.expect("u a 35s")
	})
}

// Each row is what clients do within a minute and a half, and what is closed by then.
func TestWhatAClosingSays(t *testing.T) {
	for name, row := range map[string]struct {
		do   func(*world)
		want []string
	}{
		"both connections of a burst are closed": {func(w *world) {
			c := w.client()
			c.get("a/manifest")
			one, other := c.open("a/1"), c.open("a/2")
			io.ReadAll(one)
			io.ReadAll(other)
			c.get("a/3")
			synctest.Wait()
			c.CloseIdleConnections()
		}, []string{"u a 5s"}},
		"one of two connections is closed": {func(w *world) {
			audio, video := w.client(), w.client()
			audio.get("a/manifest", "a/1")
			video.get("a/manifest", "a/1")
			audio.CloseIdleConnections()
			time.Sleep(40 * time.Second)
			w.expect()
			video.CloseIdleConnections()
		}, []string{"u a 45s"}},
		"it comes back just in time": {func(w *world) {
			c := w.client()
			c.get("a/1", "a/2")
			c.CloseIdleConnections()
			time.Sleep(After - time.Millisecond)
			c.get("a/3", "a/4")
			time.Sleep(30 * time.Second)
		}, nil},
		"another connection takes over, and is closed by the server": {func(w *world) {
			c := w.client()
			c.get("a/1", "a/2")
			c.CloseIdleConnections()
			time.Sleep(time.Second)
			c.get("a/3", "a/4")
			time.Sleep(idle + time.Second)
		}, nil},
		"the server's idle timeout": {func(w *world) {
			w.client().get("a/1", "a/2")
			time.Sleep(idle + time.Second)
		}, nil},
		"the server's idle timeout of 3s, and a client that closes after 4s": {func(w *world) {
			w.serve(3 * time.Second)
			c := w.client(func(tr *http.Transport) { tr.IdleConnTimeout = 4 * time.Second })
			c.get("a/manifest", "a/1")
			for range 3 {
				time.Sleep(10 * time.Second)
				c.get("a/2", "a/3")
			}
		}, nil},
		"Node's fetch, which closes after 4s, with segments of 10s": {func(w *world) {
			c := w.client(func(tr *http.Transport) { tr.IdleConnTimeout = 4 * time.Second })
			c.get("a/manifest", "a/1")
			for range 3 { // each on a connection of its own
				time.Sleep(10 * time.Second)
				c.get("a/2")
			}
		}, nil},
		"another playback's connection": {func(w *world) {
			c := w.client()
			c.get("a/1", "a/2")
			time.Sleep(time.Second)
			c.get("b/1", "b/2")
			c.CloseIdleConnections()
			time.Sleep(5 * time.Second)
		}, []string{"u a 10.5s", "u b 6s"}},
		"another playback's answer is broken off, and a page plays on": {func(w *world) {
			c := w.client()
			c.get("a/manifest", "a/1")
			time.Sleep(time.Second)
			c.get("b/manifest")
			c.open("b/endless").Close()
			time.Sleep(8 * time.Second)
			c.get("a/2", "a/3")
		}, []string{"u b 6s"}},
		"the same, by a page whose other player is silent for long": {func(w *world) {
			c := w.client()
			c.get("a/manifest", "a/1")
			time.Sleep(time.Second)
			c.get("b/manifest")
			c.open("b/endless").Close()
			time.Sleep(time.Second)
			c.get("b/1", "b/2")
			time.Sleep(20 * time.Second)
			w.expect()
			c.CloseIdleConnections() // of b alone, since a had none any more
		}, []string{"u b 27s"}},
		"something is broken off that is nobody's playback": {func(w *world) {
			c := w.client()
			c.get("a/manifest", "a/1")
			time.Sleep(time.Second)
			c.open("a/image").Close()
			time.Sleep(8 * time.Second)
			c.get("a/2", "a/3")
		}, nil},
		"something is broken off that is nobody's playback, and another plays on": {func(w *world) {
			c := w.client()
			c.get("b/1", "a/manifest", "a/1")
			time.Sleep(time.Second)
			c.open("a/image").Close()
			time.Sleep(time.Second)
			c.get("b/2", "b/3")
			time.Sleep(20 * time.Second)
			w.expect()
			c.CloseIdleConnections()
		}, []string{"u b 27s"}},
		"players that were silent, and are over after one that was not": {func(w *world) {
			silent := w.client()
			silent.get("a/1", "a/2")
			time.Sleep(4 * time.Second)
			silent.CloseIdleConnections() // it would have asked until 10.5s
			other := w.client()
			other.get("b/1", "b/2")
			other.CloseIdleConnections() // over at 9s
			time.Sleep(time.Second)
			third := w.client()
			third.get("c/1", "c/2")
			time.Sleep(2 * time.Second)
			third.CloseIdleConnections() // over at 12s
		}, []string{"u a 10.5s", "u b 9s", "u c 12s"}},
		"ffmpeg, which lets go of one of two connections and goes on": {func(w *world) {
			manifests, segments := w.client(), w.client()
			for range 5 {
				manifests.get("a/manifest")
				segments.get("a/1", "a/2")
				segments.CloseIdleConnections()
				time.Sleep(6 * time.Second)
				segments.get("a/3", "a/4")
				manifests.CloseIdleConnections()
				time.Sleep(6 * time.Second)
			}
			w.expect()
			segments.CloseIdleConnections()
		}, []string{"u a 1m5s"}},
		"no idle timeout": {func(w *world) {
			w.serve(-1)
			c := w.client()
			c.get("a/1", "a/2")
			time.Sleep(10 * time.Minute)
			c.CloseIdleConnections()
		}, []string{"u a 10m5s"}},
		"a connection for each request": {func(w *world) {
			c := w.client(func(tr *http.Transport) { tr.DisableKeepAlives = true })
			c.get("a/manifest", "a/1", "a/2")
		}, nil},
		"a connection for each request, which the client closes": {func(w *world) {
			for range 3 {
				c := w.client()
				c.get("a/1")
				c.CloseIdleConnections()
			}
		}, nil},
		"all are closed at once, the last carried one answer": {func(w *world) {
			c, other := w.client(), w.client()
			c.get("a/manifest", "a/1")
			other.get("a/2")
			time.Sleep(time.Second)
			c.CloseIdleConnections()
			other.CloseIdleConnections()
		}, []string{"u a 6s"}},
		"one is closed, and the last carries one more answer": {func(w *world) {
			c, other := w.client(), w.client()
			c.get("a/manifest", "a/1")
			c.CloseIdleConnections()
			time.Sleep(time.Second)
			other.get("a/2")
			other.CloseIdleConnections()
		}, nil},
		"a segment is cut short, and another rendition follows": {func(w *world) {
			c := w.client()
			c.get("a/manifest")
			c.open("a/file").Close()
			time.Sleep(time.Second)
			c.get("a/1", "a/2")
			time.Sleep(time.Second)
			c.open("a/file").Close()
			time.Sleep(2 * time.Second)
			c.get("a/3", "a/4")
			time.Sleep(30 * time.Second)
		}, nil},
		"the client goes in the middle of a segment": {func(w *world) {
			c := w.client()
			c.get("a/manifest")
			body := c.open("a/file")
			time.Sleep(10 * time.Second)
			body.Close()
		}, []string{"u a 15s"}},
		"the client goes in the middle of an endless answer": {func(w *world) {
			body := w.client().open("a/endless")
			go io.Copy(io.Discard, body)
			time.Sleep(10 * time.Second)
			body.Close()
		}, []string{"u a 15s"}},
		"the client goes in the middle of a file that no manifest names": {func(w *world) {
			body := w.client().open("a/file")
			time.Sleep(2 * time.Second)
			body.Close()
		}, nil},
		"the same by HTTP/2, and all of the connection": {func(w *world) {
			c := w.client(http2)
			c.get("a/1")
			c.open("a/file")
			c.open("b/manifest")
			go io.Copy(io.Discard, c.open("b/file"))
			time.Sleep(2 * time.Second)
			c.cut()
		}, []string{"u b 7s"}},
		"a stream of HTTP/2 is reset, and nothing else": {func(w *world) {
			c := w.client(http2)
			c.get("a/manifest", "a/1")
			c.open("a/endless").Close()
			time.Sleep(30 * time.Second)
		}, nil},
		"a client that does not read": {func(w *world) {
			c := w.client()
			c.get("a/manifest")
			c.open("a/endless")
			time.Sleep(30 * time.Second)
		}, nil},
		"three playbacks on one connection of HTTP/2": {func(w *world) {
			c := w.client(http2)
			c.get("a/manifest", "b/manifest", "c/manifest", "a/1", "b/1", "c/1")
			other := w.client()
			other.get("b/1", "b/2")
			time.Sleep(10 * time.Second)
			c.CloseIdleConnections()
			time.Sleep(10 * time.Second)
			w.expect("u a 15s", "u c 15s")
			other.CloseIdleConnections()
		}, []string{"u b 25s"}},
		"a playback that its connection has forgotten for sixteen others": {func(w *world) {
			c, own := w.client(http2), w.client()
			c.get("a/1")
			own.get("a/1", "a/2")
			time.Sleep(After)
			for name := byte('b'); name < 'b'+maxCarried; name++ {
				c.get(string(name) + "/1")
			}
			own.CloseIdleConnections()
		}, nil},
		"the server's idle timeout, by HTTP/2": {func(w *world) {
			w.client(http2).get("a/manifest", "a/1")
			time.Sleep(idle + 5*time.Second)
		}, nil},
		"HTTP/2, then HTTP/3 and a pause": {func(w *world) {
			c := w.client(http2)
			c.get("a/manifest", "a/1")
			w.overHTTP3("a")
			c.CloseIdleConnections()
			time.Sleep(time.Minute)
		}, nil},
		"HTTP/3, then HTTP/1.1": {func(w *world) {
			w.overHTTP3("a")
			c := w.client()
			c.get("a/1", "a/2")
			c.CloseIdleConnections()
		}, nil},
		"HTTP/1.1, closed, then HTTP/3": {func(w *world) {
			c := w.client()
			c.get("a/1", "a/2")
			c.CloseIdleConnections()
			time.Sleep(time.Second)
			w.overHTTP3("a")
			time.Sleep(time.Minute)
		}, nil},
		"HTTP/3, long ago": {func(w *world) {
			w.overHTTP3("a")
			time.Sleep(2 * hiddenFor)
			c := w.client()
			c.get("a/1", "a/2")
			c.CloseIdleConnections()
		}, []string{"u a 10m5s"}},
		"two users on one connection": {func(w *world) {
			c := w.client()
			c.get("a/1", "a/2")
			c.user = "v"
			c.get("b/1")
			c.CloseIdleConnections()
		}, nil},
		"two users on one of a proxy's connections": {func(w *world) {
			pool, more := w.client(), w.client()
			more.get("a/1", "a/2")
			pool.get("a/1")
			pool.user = "v"
			pool.get("b/1")
			pool.CloseIdleConnections()
			time.Sleep(time.Second)
			more.CloseIdleConnections()
		}, nil},
		"a proxy that says so": {func(w *world) {
			c := w.client()
			c.get("a/1", "a/2")
			c.via = "1.1 proxy"
			c.get("a/3")
			c.CloseIdleConnections()
		}, nil},
		"a reload": {func(w *world) {
			c := w.client()
			c.get("a/1", "a/2")
			w.serve(idle)
			time.Sleep(30 * time.Second)
			c.get("a/3", "a/4")
			time.Sleep(time.Second)
			c.CloseIdleConnections()
		}, []string{"u a 36s"}},
		"a reload, by HTTP/2": {func(w *world) {
			w.client(http2).get("a/manifest", "a/1", "b/1")
			w.serve(idle)
		}, nil},
		"a client that goes just before a reload": {func(w *world) {
			c := w.client()
			c.get("a/1", "a/2")
			c.CloseIdleConnections()
			time.Sleep(4 * time.Second)
			w.serve(idle)
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			withWorld(t, func(w *world) {
				row.do(w)
				w.settle()
				w.expect(row.want...)
			})
		})
	}
}

// cut ends all connections at once, whatever they carry.
func (c *client) cut() {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	for _, nc := range c.conns {
		nc.Close()
	}
}

// overHTTP3 is a request of user u by a connection that the server has no hooks for.
func (w *world) overHTTP3(playback string) {
	p := &Playback{Closer: w, ID: guard.ID{playback[0]}, User: "u"}
	w.registry.Carry(nil, p, false)
	w.registry.Answered(nil, p, false, false)
}
