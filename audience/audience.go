// Package audience counts who watches how much at once, and what limits would make
// of it. A gate that only observes tells it of requests as they come, a log that is
// replayed of those that came: both get the same Report.
package audience

import (
	"hash/maphash"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/streamguard/streamguard/guard"
)

// MaxLimit is the highest limit that a Report is about.
const MaxLimit = 10

// Bounds on what an Audience remembers. Beyond them the Report says that its numbers
// are too low.
const (
	maxUsers    = 1 << 20 // some 500 MB, if each has had three playbacks
	maxStreams  = 1 << 20
	maxTogether = 64      // playbacks of one user that are told apart
	maxSpan     = 24 * 92 // hours
	shards      = 64
)

// Audience is what has been seen. Create it with New.
type Audience struct {
	seed   maphash.Seed
	shards [shards]shard

	watched   atomic.Bool
	mu        sync.Mutex
	since     time.Time // zero: nobody has watched yet
	examples  examples
	crowded   []Crowd
	calls     map[int64]int64 // of the store, by Unix time in minutes
	uncounted map[string]*Uncounted
}

// shard is what has been seen of a part of the users, and of a part of the streams.
type shard struct {
	mu      sync.Mutex
	users   map[string]*user
	streams map[uint64]struct{}
	hours   map[int64]*hour       // by Unix time in hours
	minutes map[int64]span        // by Unix time in minutes
	results [MaxLimit + 1]outcome // by policy
	rules   []ruleOutcome

	requests, playbacks, attempts, beyond, selves, renamed int64
	latest                                                 int64 // moment at which something was seen

	full bool // there was no room for all users
	long bool // nor for all hours
}

// span is what there is in a minute.
type span struct {
	more   int32 // playbacks than in the minute before
	starts int32
}

// outcome is what a policy makes of playbacks.
type outcome struct{ refused, replaced, users int64 }

// ruleOutcome is the outcome of one configured limit, which may be another for each user.
type ruleOutcome struct {
	outcome
	rule   guard.Rule // with the highest limit
	lowest int
}

// hour is what begins within one.
type hour struct {
	playbacks, replaced int64
	refused             [MaxLimit + 1]int64 // by policy
}

// user is one who watches, or has.
type user struct {
	playbacks        []playback // whose time has not been counted yet
	counted          int64      // until when it has been, in milliseconds
	together         []int64    // milliseconds with one playback, two, and so on
	most             int        // at once
	mostAt           int64
	playbacksStarted int64
	refused          int64
	hit              set // the policies that have refused the user
}

// playback is one, from its first request to its last.
type playback struct {
	id          guard.ID
	stream      string
	name        uint64 // what its player calls it, beside its id
	first, last int64  // in milliseconds
	out         set    // the policies under which it holds no slot
	wasOut      set    // those that have refused it
	started     bool   // it began here; of others only their requests are known
	attempt     bool   // it never played
	renamed     bool
	example     string
}

// New returns an Audience that has seen nobody.
func New() *Audience {
	a := &Audience{seed: maphash.MakeSeed(), uncounted: make(map[string]*Uncounted), calls: make(map[int64]int64)}
	for i := range a.shards {
		a.shards[i].init()
	}
	return a
}

func (s *shard) init() {
	s.users, s.streams = make(map[string]*user), make(map[uint64]struct{})
	s.hours, s.minutes = make(map[int64]*hour), make(map[int64]span)
}

// Watch says that from a moment on somebody looks, if nobody did before.
func (a *Audience) Watch(now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.since.IsZero() {
		a.since = now
		a.watched.Store(true)
	}
}

// Calls counts calls of the store that guards cost, once somebody watches.
func (a *Audience) Calls(at time.Time, n int) {
	if !a.watched.Load() {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if m := at.UnixMilli() / minute; a.calls[m] > 0 || len(a.calls) < 60*maxSpan {
		a.calls[m] += int64(n)
	}
}

func (a *Audience) shard(user string) *shard {
	return &a.shards[maphash.String(a.seed, user)%shards]
}

func (a *Audience) seeStream(stream string) {
	if stream == "" {
		return
	}
	sum := maphash.String(a.seed, stream)
	s := &a.shards[sum%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.streams) < maxStreams/shards {
		s.streams[sum] = struct{}{}
	}
}

// Request is one that is part of a playback.
type Request struct {
	At     time.Time
	User   string
	ID     guard.ID
	Stream string        // "" where the request does not say which
	Name   []byte        // what its player calls the playback, beside the id; empty where it says nothing
	TTL    time.Duration // how long the playback has its slot by this
	Goes   bool          // it came before: this is its answer, which is still being sent
}

// Request counts one.
func (a *Audience) Request(r *Request) {
	if a.request(r) {
		a.seeStream(r.Stream)
	}
}

// request reports whether the playback is on another stream by it.
func (a *Audience) request(r *Request) (moved bool) {
	sh, now := a.shard(r.User), r.At.UnixMilli()
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if !r.Goes {
		sh.requests++
	}
	sh.latest = max(sh.latest, now)
	u := sh.user(r.User)
	if u == nil {
		return false
	}
	p := u.find(r.ID)
	if p == nil || p.last < now-r.TTL.Milliseconds() {
		if p = sh.open(u, now, r.TTL); p == nil {
			return false
		}
		*p = playback{id: r.ID, first: now}
	}
	if p.attempt {
		p.attempt, p.first = false, now
	}
	p.last = max(p.last, now)
	if moved = r.Stream != "" && r.Stream != p.stream; moved {
		p.stream = strings.Clone(r.Stream)
	}
	if len(r.Name) == 0 || p.renamed {
		return moved
	}
	name := maphash.Bytes(a.seed, r.Name)
	if p.renamed = p.name != 0 && p.name != name; p.renamed {
		sh.renamed++
		a.addExample(renamed, Example{User: r.User, Stream: r.Stream, Lines: u.linesOf([]guard.Guard{{ID: r.ID}}, "")})
	}
	p.name = name
	return moved
}

// user is the account of a user, nil where there is no room for one more.
func (s *shard) user(name string) *user {
	u := s.users[name]
	if u == nil {
		if len(s.users) >= maxUsers/shards {
			s.full = true
			return nil
		}
		u = new(user)
		s.users[strings.Clone(name)] = u
	}
	return u
}

// find is the last that there was of a playback, or nil.
func (u *user) find(id guard.ID) *playback {
	for i := len(u.playbacks) - 1; i >= 0; i-- {
		if u.playbacks[i].id == id {
			return &u.playbacks[i]
		}
	}
	return nil
}

// open is a place for one more playback, nil where there is none.
func (s *shard) open(u *user, now int64, ttl time.Duration) *playback {
	if len(u.playbacks) >= 4 {
		s.count(u, now, now-ttl.Milliseconds())
	}
	if len(u.playbacks) >= maxTogether {
		return nil
	}
	u.playbacks = append(u.playbacks, playback{})
	return &u.playbacks[len(u.playbacks)-1]
}

func (s *shard) hour(now int64) *hour {
	h := s.hours[now/anHour]
	if h == nil {
		h = new(hour)
		if len(s.hours) < maxSpan {
			s.hours[now/anHour] = h
		} else {
			s.long = true
		}
	}
	return h
}

// inMinute changes what there is in a minute.
func (s *shard) inMinute(at int64, more, starts int32) {
	m := s.minutes[at/minute]
	if m == (span{}) && len(s.minutes) >= 60*maxSpan {
		return
	}
	s.minutes[at/minute] = span{m.more + more, m.starts + starts}
}
