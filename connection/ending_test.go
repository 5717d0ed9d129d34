package connection

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/streamguard/streamguard/guard"
)

// ends says that an endless answer of a playback of user "u" is over.
func (w *world) ends(name byte) {
	w.held.Add(1)
	w.registry.Ends(&Playback{Closer: w, ID: guard.ID{name}, User: "u", Client: 7}, func() { w.held.Add(-1) })
}

// Each row is what happens beside the end of an endless answer, and what is closed.
func TestTheEndOfAnEndlessAnswerIsTheEndOfItsPlayback(t *testing.T) {
	for name, row := range map[string]struct {
		do   func(*world, *client)
		want []string
	}{
		"nothing": {func(w *world, c *client) {
			w.ends('a')
		}, []string{"u a 5s"}},
		"its connection is kept, and closed later": {func(w *world, c *client) {
			c.get("a/1", "a/2")
			w.ends('a')
			w.settle()
			w.expect("u a 5s")
			c.CloseIdleConnections()
		}, []string{"u a 11s"}},
		"its connection is closed": {func(w *world, c *client) {
			c.get("a/1", "a/2")
			w.ends('a')
			time.Sleep(time.Second)
			c.CloseIdleConnections()
		}, []string{"u a 5s"}},
		"its connection was closed just now": {func(w *world, c *client) {
			c.get("a/1", "a/2")
			c.CloseIdleConnections()
			synctest.Wait()
			time.Sleep(time.Second)
			w.ends('a')
		}, []string{"u a 6s"}},
		"it is asked for again on its connection": {func(w *world, c *client) {
			c.get("a/1", "a/2")
			w.ends('a')
			time.Sleep(After - time.Millisecond)
			c.get("a/3")
		}, nil},
		"it is asked for again on another connection": {func(w *world, c *client) {
			w.ends('a')
			c.get("a/1")
		}, nil},
		"it is asked for again by HTTP/3": {func(w *world, c *client) {
			w.ends('a')
			w.registry.Carry(nil, &Playback{Closer: w, ID: guard.ID{'a'}}, false)
		}, nil},
		"it is asked for again after a reload with another store": {func(w *world, c *client) {
			w.ends('a')
			w.registry.Carry(nil, &Playback{Closer: hangs{}, ID: guard.ID{'a'}}, false)
		}, nil},
		"another is asked for": {func(w *world, c *client) {
			w.ends('a')
			c.get("b/1")
		}, []string{"u a 5s"}},
		"another answer of it goes on": {func(w *world, c *client) {
			w.ends('a')
			w.registry.Asked(guard.ID{'a'})
		}, nil},
		"it ends again": {func(w *world, c *client) {
			w.ends('a')
			time.Sleep(time.Second)
			w.ends('a')
		}, []string{"u a 6s"}},
		"it came through a proxy": {func(w *world, c *client) {
			c.via = "1.1 proxy"
			c.get("a/1", "a/2")
			c.CloseIdleConnections()
			synctest.Wait()
			w.ends('a')
		}, []string{"u a 5s"}},
		"the server ends, for another config": {func(w *world, c *client) {
			c.get("a/1", "a/2")
			w.mine.End()
			w.ends('a')
		}, []string{"u a 5s"}},
		"the process stops": {func(w *world, c *client) {
			w.registry.Stopping = func() bool { return true }
			w.ends('a')
		}, nil},
		"a start of the same client": {func(w *world, c *client) {
			c.get("a/1", "a/2")
			w.ends('a')
			if !w.hurry(7) || w.hurry(7) {
				w.t.Error("it is closed not once")
			}
			c.CloseIdleConnections()
		}, []string{"u a 0s", "u a 5s"}}, // the second time it is closed already
		"a start of the same client after a reload with another store": {func(w *world, c *client) {
			w.ends('a')
			if !w.registry.Hurry(w.t.Context(), &Playback{Closer: hangs{}, ID: guard.ID{'z'}, User: "u", Client: 7}) {
				w.t.Error("it is not closed")
			}
		}, []string{"u a 0s"}},
		"too many are known": {func(w *world, c *client) {
			w.registry.known += maxKnown
			w.ends('a')
			w.registry.known -= maxKnown
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			withWorld(t, func(w *world) {
				row.do(w, w.client())
				w.settle()
				w.expect(row.want...)
			})
		})
	}
}
