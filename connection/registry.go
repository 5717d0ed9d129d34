package connection

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/streamguard/streamguard/guard"
)

// After is how long after its client has closed its last connection a playback is
// over, if nothing is asked for it meanwhile.
var After = guard.Paced(5 * time.Second)

const (
	maxKnown = 1 << 20 // playbacks on connections, each as often as there are connections: some 300 MB
	atOnce   = 8       // guards that are closed at once

	maxHurried = 8 // guards that a start has closed
)

// Closer closes guards of a store.
type Closer interface {
	// HangUp closes the guard of a playback whose client has closed its
	// connections, and reports whether it did.
	HangUp(ctx context.Context, user string, id guard.ID) (bool, error)
}

// Playback is one that a request is part of, and whose it is.
type Playback struct {
	Closer Closer // of the store that has its guard
	ID     guard.ID
	User   string
	Device string
	Client guard.Client
}

// key tells playbacks apart.
type key struct {
	Closer
	guard.ID
}

func (p *Playback) key() key { return key{p.Closer, p.ID} }

// viewer is who starts the next playback where one has just been left.
type viewer struct {
	Closer
	user, device string
	guard.Client
}

func (p *Playback) viewer() viewer { return viewer{p.Closer, p.User, p.Device, p.Client} }

// playback is one that has connections, or had them until a moment ago.
type playback struct {
	Playback
	led    atomic.Bool // one of its requests was for a manifest
	open   int         // connections that carry it
	asked  int64       // when it was last asked for on one that is closed
	said   int64       // when one was last closed that says its client is gone; 0 if none was
	over   int64       // when its client closed the last of them; 0 if it did not
	server *Server     // whose connection that was

	newer, older *playback // others that are over and were the same viewer's
}

// Registry knows the connections of any number of servers. Create it with New.
type Registry struct {
	after    time.Duration
	onClosed func(hurried bool)
	start    time.Time
	conns    sync.Map // *Conn by net.Conn
	hidden   hidden

	mu        sync.Mutex
	playbacks map[key]*playback
	known     int                  // playbacks on connections, and those that are over
	left      []ended              // in the order of their time
	leavers   map[viewer]*playback // the newest of those that are over
	armed     bool                 // a timer runs, or what is due is being closed
	slots     chan struct{}
}

// ended is a playback whose client closed its last connection at a time.
type ended struct {
	*playback
	at int64
}

// New returns a registry that knows no connection. A playback is over when nothing
// was asked for it for a time after its client has closed its last connection. onClosed,
// which may be nil, hears of each guard that was closed, and whether that was for the
// sake of the same client's next start.
func New(after time.Duration, onClosed func(hurried bool)) *Registry {
	if onClosed == nil {
		onClosed = func(bool) {}
	}
	return &Registry{
		after:     after,
		onClosed:  onClosed,
		start:     time.Now().Add(-time.Millisecond), // no moment is 0
		playbacks: make(map[key]*playback),
		leavers:   make(map[viewer]*playback),
		slots:     make(chan struct{}, atOnce),
	}
}

// now is in nanoseconds since a moment before the first.
func (r *Registry) now() int64 { return int64(time.Since(r.start)) }

// join is one more connection that carries a playback. It returns nil where too
// many are known.
func (r *Registry) join(p *Playback, manifest bool) *playback {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.known >= maxKnown {
		return nil
	}
	r.known++
	known := r.playbacks[p.key()]
	if known == nil {
		known = &playback{Playback: *p}
		known.User, known.Device = strings.Clone(p.User), strings.Clone(p.Device)
		r.playbacks[p.key()] = known
	}
	r.goesOn(known)
	known.open++
	if manifest {
		known.led.Store(true)
	}
	return known
}

// leave is one connection less, which was the server's, and what its end says. Where a
// client closes all of its connections at once, those that say little may be the last.
func (r *Registry) leave(of *carried, server *Server, said saying) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := of.playback
	p.open--
	p.asked = max(p.asked, of.asked)
	if said == gone {
		p.said = r.now()
	}
	switch {
	case p.open > 0:
		r.known--
		return
	case said == nothing, p.said < p.asked:
		r.known--
		delete(r.playbacks, p.key())
		return
	}
	p.over, p.server = r.now(), server
	r.left = append(r.left, ended{p, p.over})
	if p.older = r.leavers[p.viewer()]; p.older != nil {
		p.older.newer = p
	}
	r.leavers[p.viewer()] = p
	if !r.armed {
		r.armed = true
		time.AfterFunc(r.after, r.due)
	}
}

// goesOn says that a playback is not over, if it was.
func (r *Registry) goesOn(p *playback) {
	if p.over == 0 {
		return
	}
	r.known--
	p.over = 0
	switch {
	case p.newer != nil:
		p.newer.older = p.older
	case p.older != nil:
		r.leavers[p.viewer()] = p.older
	default:
		delete(r.leavers, p.viewer())
	}
	if p.older != nil {
		p.older.newer = p.newer
	}
	p.newer, p.older = nil, nil
}

// hide says that a playback has connections that are not seen, or not its client's
// own. For some minutes nothing is said of it.
func (r *Registry) hide(k key) { r.hidden.add(k, r.now()) }

// cut says that what was left of a playback when its connection was closed was a file
// that no manifest names.
func (r *Registry) cut(k key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.playbacks[k]; p != nil && p.over != 0 && !p.led.Load() {
		r.goesOn(p)
		delete(r.playbacks, k)
	}
}

// take forgets a playback that is over. It reports whether its guard is to be closed.
func (r *Registry) take(p *playback) bool {
	r.goesOn(p)
	delete(r.playbacks, p.key())
	return !p.server.ending.Load() && !r.hidden.has(p.key(), r.now())
}

// due closes what has been over for long enough.
func (r *Registry) due() {
	for p := r.next(); p != nil; p = r.next() {
		r.slots <- struct{}{}
		go func() {
			defer func() { <-r.slots }()
			r.close(context.Background(), p, false)
		}()
	}
}

// next is a playback whose guard is to be closed now; nil if there is none. Then a
// timer runs until there is.
func (r *Registry) next() *playback {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.left) > 0 {
		first := r.left[0]
		if wait := first.at + int64(r.after) - r.now(); wait > 0 {
			time.AfterFunc(time.Duration(wait), r.due)
			return nil
		}
		r.left[0] = ended{}
		r.left = r.left[1:]
		if first.over == first.at && r.take(first.playback) {
			return first.playback
		}
	}
	r.left, r.armed = nil, false
	return nil
}

func (r *Registry) close(ctx context.Context, p *playback, hurried bool) bool {
	ctx, cancel := context.WithTimeout(ctx, After)
	defer cancel()
	closed, err := p.Closer.HangUp(ctx, p.User, p.ID)
	if closed = closed && err == nil; closed {
		r.onClosed(hurried)
	}
	return closed
}

// Hurry closes at once the guards of what the client of a start has left, without
// waiting for the time to be over. It reports whether it closed any.
func (r *Registry) Hurry(ctx context.Context, start *Playback) (closed bool) {
	if start.Client == 0 {
		return false
	}
	for _, p := range r.leftBy(start) {
		closed = r.close(ctx, p, true) || closed
	}
	return closed
}

func (r *Registry) leftBy(start *Playback) (all []*playback) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for p := r.leavers[start.viewer()]; p != nil && len(all) < maxHurried; {
		older := p.older
		if p.ID != start.ID && r.take(p) {
			all = append(all, p)
		}
		p = older
	}
	return all
}
