package connection

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/streamguard/streamguard/guard"
)

// After is how long after its client has closed its last connection, or has left an
// endless answer, a playback is over, if nothing is asked for it meanwhile.
var After = guard.Paced(5 * time.Second)

// A client that was silent for so long before it closed a connection may close those
// that are idle, and play segments that are as long as they get: it is not over before it
// would have asked for the next one. Nor is a playback whose connection was used for
// something else since: a browser closes the one whose answer its page breaks off.
var (
	idles   = guard.Paced(3 * time.Second)
	segment = guard.Paced(10500 * time.Millisecond)
)

// Longest is the most that it takes until it is known whether a playback is over, on
// other nodes too.
var Longest = max(After, segment-idles) + 6*soon

const (
	atOnce     = 8 // guards that are closed at once
	maxHurried = 8 // guards that a start has closed
)

// ending is that a playback is over, unless something is asked for it soon.
type ending struct {
	*playback
	closing // of its client's last connection; no server's where an endless answer is over
	due     int64
	release func() // gives back the store; may be nil

	newer, older *ending // others of the same viewer's
}

// viewer is who starts the next playback where one has just been left.
type viewer struct {
	user, device string
	guard.Client
}

func (p *Playback) viewer() viewer { return viewer{p.User, p.Device, p.Client} }

// Ends is the moment when an endless answer of a playback is over. That says as much
// as the closing of its connections, and is seen behind proxies too. release, which
// may be nil, is called when nothing more comes of it.
func (r *Registry) Ends(p *Playback, release func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if other := r.answers[p.ID]; other != nil { // also another store's of that name: who asks says only that
		r.goesOn(other.playback)
	}
	if before := r.playbacks[p.key()]; before != nil {
		r.goesOn(before)
	}
	if r.known >= maxKnown {
		letGo(release)
		return
	}
	r.known++
	known := r.playback(p)
	r.end(known, closing{}, release)
	r.answers[p.ID] = known.ending
	r.ends.Store(int64(len(r.answers)))
}

// Asked says that a playback is asked for of which an endless answer may be over: perhaps
// in another store's name, after a reload.
func (r *Registry) Asked(id guard.ID) {
	if r.ends.Load() == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.answers[id]; e != nil {
		r.goesOn(e.playback)
	}
}

// GoesOn says that a playback is asked for by a request that no connection carries.
func (r *Registry) GoesOn(p *Playback) {
	if r.pending.Load() == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if known := r.playbacks[p.key()]; known != nil {
		r.goesOn(known)
	}
}

// end says that a playback is over.
func (r *Registry) end(p *playback, how closing, release func()) {
	now := r.now()
	e := &ending{playback: p, closing: how, due: now + int64(r.after), release: release, older: r.leavers[p.viewer()]}
	if how.server != nil && (how.others || now-p.asked >= int64(idles)) {
		e.due = max(e.due, p.asked+int64(segment))
	}
	if e.older != nil {
		e.older.newer = e
	}
	p.ending, r.leavers[p.viewer()] = e, e
	if r.closes(e) {
		e.Closer.Leaves(e.ID, time.Duration(e.due-now))
	}
	i, _ := slices.BinarySearchFunc(r.left, e.due+1, func(other *ending, due int64) int { return cmp.Compare(other.due, due) })
	r.left = slices.Insert(r.left, i, e)
	r.pending.Store(int64(len(r.left)))
	switch wait := time.Duration(e.due - now); {
	case !r.armed:
		r.armed, r.timer = true, time.AfterFunc(wait, r.due)
	case i == 0 && r.timer.Stop():
		r.timer.Reset(wait)
	}
}

// goesOn says that a playback is not over, if it was.
func (r *Registry) goesOn(p *playback) {
	if e := p.ending; e != nil {
		r.forget(e)
		letGo(e.release)
		e.Closer.IsBack(e.ID)
	}
}

func letGo(release func()) {
	if release != nil {
		go release()
	}
}

func (r *Registry) forget(e *ending) {
	r.known--
	switch {
	case e.newer != nil:
		e.newer.older = e.older
	case e.older != nil:
		r.leavers[e.viewer()] = e.older
	default:
		delete(r.leavers, e.viewer())
	}
	if e.older != nil {
		e.older.newer = e.newer
	}
	if e.playback.ending = nil; e.open == 0 {
		delete(r.playbacks, e.key())
	}
	if r.answers[e.ID] == e {
		delete(r.answers, e.ID)
		r.ends.Store(int64(len(r.answers)))
	}
}

// take forgets an ending. It reports whether the guard is to be closed.
func (r *Registry) take(e *ending) (closes bool) {
	r.forget(e)
	if closes = r.closes(e); !closes {
		letGo(e.release)
	}
	return closes
}

// closes reports whether an ending still says that its playback is over. It does not
// where a page goes on, which has broken off another's answer.
func (r *Registry) closes(e *ending) bool {
	if e.server == nil {
		return r.Stopping == nil || !r.Stopping()
	}
	if e.beside != nil {
		if other := r.playbacks[e.beside.key()]; other != nil && other.open > 0 {
			return false
		}
	}
	return !e.server.ending.Load() && !r.hidden.has(e.key(), r.now())
}

// due closes what has been over for long enough.
func (r *Registry) due() {
	for e := r.next(); e != nil; e = r.next() {
		r.slots <- struct{}{}
		go func() {
			defer func() { <-r.slots }()
			r.close(context.Background(), e, false)
			r.mu.Lock()
			defer r.mu.Unlock()
			delete(r.closing, e.key())
		}()
	}
}

// next is an ending whose guard is to be closed now; nil if there is none. Then a
// timer runs until there is.
func (r *Registry) next() *ending {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.left) > 0 {
		first := r.left[0]
		if wait := first.due - r.now(); wait > 0 {
			r.timer = time.AfterFunc(time.Duration(wait), r.due)
			return nil
		}
		r.left[0] = nil
		r.left = r.left[1:]
		r.pending.Store(int64(len(r.left)))
		if first.playback.ending == first && r.take(first) {
			r.closing[first.key()] = struct{}{}
			return first
		}
	}
	r.left, r.armed = nil, false
	return nil
}

func (r *Registry) close(ctx context.Context, e *ending, hurried bool) bool {
	defer letGo(e.release)
	ctx, cancel := context.WithTimeout(ctx, After)
	defer cancel()
	closed, err := e.Closer.HangUp(ctx, e.User, e.ID)
	switch {
	case err != nil:
		return false
	case closed:
		r.onClosed(hurried)
	default: // no start is to wait for it
		r.hide(e.key())
	}
	return closed
}

// soon is how long a guard takes to be closed, once that is due.
var soon = guard.Paced(50 * time.Millisecond)

// Due is how long it takes until the guard of one of some playbacks may be closed,
// because its client has left it. It is 0 where none is to be.
func (r *Registry) Due(closer Closer, playbacks []guard.Guard) (first time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range playbacks {
		k := key{closer, playbacks[i].ID}
		due := time.Duration(0)
		if _, now := r.closing[k]; now {
			due = soon
		} else if p := r.playbacks[k]; p != nil && p.ending != nil && r.closes(p.ending) {
			due = max(time.Duration(p.ending.due-r.now()), 0) + soon
		}
		if first == 0 || due > 0 && due < first {
			first = due
		}
	}
	return first
}

// Hurry closes at once the guards of what the client of a start has left, without
// waiting for the time to be over. It reports whether it closed any.
func (r *Registry) Hurry(ctx context.Context, start *Playback) (closed bool) {
	if start.Client == 0 {
		return false
	}
	for _, e := range r.leftBy(start) {
		closed = r.close(ctx, e, true) || closed
	}
	return closed
}

func (r *Registry) leftBy(start *Playback) (all []*ending) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for e := r.leavers[start.viewer()]; e != nil && len(all) < maxHurried; {
		older := e.older
		if e.ID != start.ID && r.take(e) {
			all = append(all, e)
		}
		e = older
	}
	return all
}
