package connection

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/streamguard/streamguard/guard"
)

// hurry is a start of a client of user "u" on playback z.
func (w *world) hurry(client guard.Client) bool {
	return w.registry.Hurry(w.t.Context(), &Playback{Closer: w, ID: guard.ID{'z'}, User: "u", Client: client})
}

func TestTheNextStartOfTheSameClientDoesNotWait(t *testing.T) {
	withWorld(t, func(w *world) {
		box, other := w.client(), w.client()
		other.get("b/1", "b/2")
		body := box.open("a/endless")
		if w.hurry(7) {
			t.Error("something that plays is closed")
		}
		body.Close()
		synctest.Wait()
		for _, client := range []guard.Client{0, 8} {
			if w.hurry(client) {
				t.Errorf("what another client has left is closed for %d", client)
			}
		}
		if w.registry.Hurry(t.Context(), &Playback{Closer: w, ID: guard.ID{'a'}, User: "u", Client: 7}) {
			t.Error("a playback that comes back closes itself")
		}
		if !w.hurry(7) || w.hurry(7) {
			t.Error("it is closed not once")
		}
		w.expect("u a 0s")
		w.settle() // and not again later
		w.expect()
		// Neither what the server has closed while it ends, nor what came back.
		box.get("c/1", "c/2")
		box.CloseIdleConnections()
		box.get("c/3", "c/4")
		synctest.Wait()
		if w.hurry(7) {
			t.Error("what came back is closed")
		}
		box.CloseIdleConnections()
		synctest.Wait()
		w.mine.End()
		if w.hurry(7) {
			t.Error("a server that ends closes something")
		}
	})
}

// Another client's start waits until it is known whether what is in its way is over.
func TestHowLongAnotherStartWaits(t *testing.T) {
	withWorld(t, func(w *world) {
		closes := make(chan struct{})
		w.hangs = closes
		inTheWay := []guard.Guard{{ID: guard.ID{'a'}}, {ID: guard.ID{'b'}}, {ID: guard.ID{'c'}}}
		expect := func(want time.Duration) {
			t.Helper()
			synctest.Wait()
			if got := w.registry.Due(w, inTheWay); got != want {
				t.Errorf("it waits %v, want %v", got, want)
			}
		}
		a, b := w.client(), w.client()
		a.get("a/1", "a/2")
		b.get("b/1", "b/2")
		expect(0)
		b.CloseIdleConnections()
		expect(After + soon)
		time.Sleep(2 * time.Second)
		a.CloseIdleConnections()
		expect(After + soon - 2*time.Second)
		a.get("a/3") // it was not over
		expect(After + soon - 2*time.Second)
		if len(w.back) != 1 || w.back[0] != "a" {
			t.Errorf("%q are back", w.back)
		}
		time.Sleep(After) // the store does not answer
		expect(soon)
		if other := w.registry.Due(hangs{}, inTheWay); other != 0 {
			t.Errorf("a start in another store waits %v", other)
		}
		close(closes)
		expect(0)
		w.expect("u b 5s")
		if want := []string{"b in 5s", "a in 5s"}; !slices.Equal(w.leave, want) {
			t.Errorf("other nodes were told of %q, want %q", w.leave, want)
		}
	})
}

// A viewer of live television who zaps on one connection of HTTP/2.
func TestManyPlaybacksOnOneConnection(t *testing.T) {
	withWorld(t, func(w *world) {
		c := w.client(http2)
		for name := byte('a'); name < 'z'; name++ {
			c.get(string(name)+"/manifest", string(name)+"/1")
			time.Sleep(10 * time.Second)
		}
		c.CloseIdleConnections()
		w.settle()
		var want []string
		for name := byte('z' - maxCarried); name < 'z'; name++ {
			want = append(want, "u "+string(name)+" 4m15s")
		}
		w.expect(want...)
	})
}

// More at once than a connection remembers: of those that it does not nothing is
// said when another connection of theirs is closed.
func TestMorePlaybacksAtOnceThanAreRemembered(t *testing.T) {
	withWorld(t, func(w *world) {
		many, own := w.client(http2), w.client()
		own.get("z/1", "z/2")
		for name := byte('a'); name <= 'z'; name++ {
			many.get(string(name) + "/1")
		}
		own.CloseIdleConnections()
		w.settle()
		w.expect()
	})
}

// A store that does not answer has nothing pile up.
func TestAStoreThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(After, func(bool) { t.Error("a guard is closed that is not") })
		hangs := hangs{}
		for i := range 100 {
			nc := connect(r)
			carry(r, nc, hangs, id(i))
			carry(r, nc, hangs, id(i))
			leave(r, nc)
		}
		before := runtime.NumGoroutine()
		time.Sleep(After + time.Millisecond)
		synctest.Wait()
		if more := runtime.NumGoroutine() - before; more > atOnce+1 {
			t.Errorf("%d goroutines", more)
		}
		time.Sleep(100 * After)
		synctest.Wait()
		if r.known != 0 || len(r.left) != 0 {
			t.Errorf("%d known, %d left", r.known, len(r.left))
		}
	})
}

// A start does not wait for a guard that the store never closes.
func TestWhatTheStoreKeepsOpenIsNotWaitedFor(t *testing.T) {
	withWorld(t, func(w *world) {
		w.stays = true
		c := w.client()
		due := func() time.Duration { return w.registry.Due(w, []guard.Guard{{ID: guard.ID{'a'}}}) }
		c.get("a/1", "a/2")
		c.CloseIdleConnections()
		synctest.Wait()
		if due() == 0 {
			t.Error("a guard that has just been left is not waited for")
		}
		w.settle()
		c.get("a/3", "a/4")
		c.CloseIdleConnections()
		synctest.Wait()
		if wait := due(); wait != 0 {
			t.Errorf("a guard that is never closed is waited for, for %v", wait)
		}
	})
}

// hangs is a store that never answers.
type hangs struct{}

func (hangs) Leaves(guard.ID, time.Duration) {}
func (hangs) IsBack(guard.ID)                {}

func (hangs) HangUp(ctx context.Context, _ string, _ guard.ID) (bool, error) {
	<-ctx.Done()
	return false, ctx.Err()
}

// Ten thousand connections that carry far more playbacks each than are remembered.
func TestWhatIsKnownIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(After, nil)
		store := &world{t: t, start: time.Now()}
		conns := make([]*pipe, 10_000)
		before := heap()
		for i := range conns {
			conns[i] = connect(r)
			c := From(conns[i].ctx)
			for j := range 100 { // a thousand are as many as these
				r.Carry(c, &Playback{Closer: store, ID: id(i*100 + j), User: "u", Client: 7}, false)
			}
			c.running = 0
		}
		if r.known != maxCarried*len(conns) || len(r.playbacks) != r.known {
			t.Errorf("%d known of %d connections, %d playbacks", r.known, len(conns), len(r.playbacks))
		}
		hidden := 0
		for i := range r.hidden {
			hidden += len(r.hidden[i].now) + len(r.hidden[i].before)
		}
		if hidden > 2*shards*maxHidden {
			t.Errorf("%d are hidden", hidden)
		}
		if grown := heap() - before; grown > 120<<20 {
			t.Errorf("%d MB", grown>>20)
		}
		for _, nc := range conns {
			nc.server.State(nc, http.StateIdle)
			leave(r, nc)
		}
		time.Sleep(After + time.Second)
		synctest.Wait()
		r.conns.Range(func(nc, _ any) bool {
			t.Errorf("%v is known after it was closed", nc)
			return false
		})
		if r.known != 0 || len(r.playbacks) != 0 || len(r.leavers) != 0 {
			t.Errorf("when all are closed %d are known, %d playbacks, %d clients", r.known, len(r.playbacks), len(r.leavers))
		}
		if len(store.closed) != maxCarried*len(conns) {
			t.Errorf("%d are closed, want the %d that were remembered", len(store.closed), maxCarried*len(conns))
		}
	})
}

func TestBeyondTheBoundNothingIsSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(After, nil)
		store := &world{t: t, start: time.Now()}
		nc := connect(r)
		r.known = maxKnown - 1
		carry(r, nc, store, id(1))
		carry(r, nc, store, id(2)) // which has no place
		r.known = 1
		other := connect(r)
		carry(r, other, store, id(2))
		carry(r, other, store, id(2))
		leave(r, other)
		leave(r, nc)
		time.Sleep(segment + time.Second)
		synctest.Wait()
		if len(store.closed) != 1 || r.known != 0 {
			t.Errorf("closed %q, %d known", store.closed, r.known)
		}
	})
}

func TestARequestAllocatesNothing(t *testing.T) {
	r := New(After, nil)
	store := &world{t: t}
	nc := connect(r)
	p := &Playback{Closer: store, ID: id(1), User: "u", Client: 7}
	c := From(nc.ctx)
	r.Carry(c, p, true)
	if n := testing.AllocsPerRun(100, func() {
		nc.server.State(nc, http.StateActive)
		r.Carry(From(nc.ctx), p, false)
		r.Answered(From(nc.ctx), p, false, false)
		nc.server.State(nc, http.StateIdle)
		r.Carry(nil, p, false)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkRequest(b *testing.B) {
	r := New(After, nil)
	store := &world{}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		nc := connect(r)
		p := &Playback{Closer: store, ID: guard.NewID("u", ""), User: "u", Client: 7}
		for pb.Next() {
			nc.server.State(nc, http.StateActive)
			c := From(nc.ctx)
			r.Carry(c, p, false)
			r.Answered(c, p, false, false)
			nc.server.State(nc, http.StateIdle)
		}
	})
}

// BenchmarkProxied is a request of one of many playbacks that a proxy's connection carries.
func BenchmarkProxied(b *testing.B) {
	r := New(After, nil)
	store := &world{}
	nc := connect(r)
	c := From(nc.ctx)
	var all [10_000]*Playback
	for i := range all {
		all[i] = &Playback{Closer: store, ID: guard.NewID("u", ""), User: fmt.Sprint(i), Client: 7}
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		p := all[i*7919%len(all)]
		nc.server.State(nc, http.StateActive)
		r.Carry(c, p, false)
		r.Answered(c, p, false, false)
		nc.server.State(nc, http.StateIdle)
	}
}

func BenchmarkConnection(b *testing.B) {
	r := New(After, nil)
	store := &world{}
	p := &Playback{Closer: store, ID: guard.NewID("u", ""), User: "u", Client: 7}
	b.ReportAllocs()
	for b.Loop() {
		nc := connect(r)
		carry(r, nc, store, p.ID)
		leave(r, nc)
	}
}

// pipe is a connection on which nothing is sent.
type pipe struct {
	net.Conn
	server *Server
	ctx    context.Context
}

func connect(r *Registry) *pipe {
	nc := &pipe{server: r.Serve()}
	nc.ctx = nc.server.Accept(context.Background(), nc, time.Minute)
	return nc
}

func carry(r *Registry, nc *pipe, closer Closer, id guard.ID) {
	p := &Playback{Closer: closer, ID: id, User: "u", Client: 7}
	nc.server.State(nc, http.StateActive)
	r.Carry(From(nc.ctx), p, false)
	r.Answered(From(nc.ctx), p, false, false)
	nc.server.State(nc, http.StateIdle)
}

func leave(r *Registry, nc *pipe) { nc.server.State(nc, http.StateClosed) }

// id is the n-th of ids that are as different as real ones.
func id(n int) (id guard.ID) {
	binary.BigEndian.PutUint64(id[:], uint64(n)*0x9e3779b97f4a7c15)
	binary.LittleEndian.PutUint64(id[8:], uint64(n))
	return id
}

func heap() int {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}
