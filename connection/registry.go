package connection

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/streamguard/streamguard/guard"
)

const maxKnown = 1 << 20 // playbacks on connections, each as often as there are connections: some 300 MB

// Closer closes guards of a store.
type Closer interface {
	// HangUp closes the guard of a playback whose client has closed its
	// connections, and reports whether it did. Without an error, a guard that was not
	// closed never is.
	HangUp(ctx context.Context, user string, id guard.ID) (bool, error)
	// Leaves hears of a playback that is over in so long, if nothing is asked for it. It
	// does not block.
	Leaves(id guard.ID, in time.Duration)
	// IsBack hears of a playback that was left, and is asked for again before its guard
	// was closed.
	IsBack(id guard.ID)
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

// playback is one that has connections, or is over.
type playback struct {
	Playback
	led    atomic.Bool // one of its requests was for a manifest
	open   int         // connections that carry it
	asked  int64       // when it was last asked for on one that is closed
	said   int64       // when one was last closed that says its client is gone; 0 if none was
	ending *ending     // nil if it is not over
}

// Registry knows the connections of any number of servers. Create it with New.
type Registry struct {
	// Stopping reports whether the process is about to stop: then that an answer ends is
	// nobody's doing. Optional.
	Stopping func() bool

	after    time.Duration
	onClosed func(hurried bool)
	start    time.Time
	conns    sync.Map // *Conn by net.Conn
	hidden   hidden

	mu        sync.Mutex
	playbacks map[key]*playback
	known     int                  // playbacks on connections, and those that are over
	left      []*ending            // in the order of their time,
	pending   atomic.Int64         // and how many they are
	leavers   map[viewer]*ending   // the newest of a viewer's
	closing   map[key]struct{}     // whose time is over, and whose guard is being closed
	answers   map[guard.ID]*ending // those of endless answers,
	ends      atomic.Int64         // and how many they are
	armed     bool                 // the timer runs, or what is due is being closed
	timer     *time.Timer
	slots     chan struct{}
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
		leavers:   make(map[viewer]*ending),
		closing:   make(map[key]struct{}),
		answers:   make(map[guard.ID]*ending),
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
	known := r.playback(p)
	known.open++
	r.goesOn(known)
	if manifest {
		known.led.Store(true)
	}
	return known
}

// playback is what is known of one, and is from now on.
func (r *Registry) playback(p *Playback) *playback {
	known := r.playbacks[p.key()]
	if known == nil {
		known = &playback{Playback: *p}
		known.User, known.Device = strings.Clone(p.User), strings.Clone(p.Device)
		r.playbacks[p.key()] = known
	}
	return known
}

// leave is one connection less. Where a client closes all of its connections at once,
// those that say little may be the last.
func (r *Registry) leave(of *carried, how closing) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := of.playback
	p.open--
	p.asked = max(p.asked, of.asked)
	if how.says == gone {
		p.said = r.now()
	}
	switch {
	case p.open > 0, p.ending != nil:
		r.known--
	case how.says == nothing, p.said < p.asked:
		r.known--
		delete(r.playbacks, p.key())
	default:
		r.end(p, how, nil)
	}
}

// hide says that a playback has connections that are not seen, or not its client's
// own. For some minutes nothing is said of it.
func (r *Registry) hide(k key) { r.hidden.add(k, r.now()) }

// cut says that what was left of a playback when its connection was closed was a file
// that no manifest names.
func (r *Registry) cut(k key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.playbacks[k]; p != nil && p.ending != nil && p.ending.server != nil && !p.led.Load() {
		r.goesOn(p)
	}
}
