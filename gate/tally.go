package gate

import (
	"cmp"
	"hash/maphash"
	"slices"
	"sync"
	"time"
)

const (
	maxReported = 10      // the highest limit that a report is about
	maxWatchers = 1 << 20 // users told apart who had several playbacks: some 20 MB
)

// Tally counts the playbacks that started, by how many the user then had.
// A limit would have refused those that were one too many for it. That is more
// than it really would have: somebody who is refused holds no slot against the
// next.
type Tally struct {
	seed maphash.Seed

	mu       sync.Mutex
	since    time.Time              // zero: nobody has watched yet
	starts   [maxReported + 2]int64 // as the user's n-th; the last is of all beyond
	most     map[uint64]uint8       // by hash of the user: the highest n, if it is above 1
	overflow bool                   // there was no room in most
	selves   int64                  // playbacks that their own viewers' would have stood in the way of, perhaps
}

// NewTally returns one that has counted nothing.
func NewTally() *Tally {
	return &Tally{seed: maphash.MakeSeed(), most: make(map[uint64]uint8)}
}

// Watch says that from now on playbacks are counted, if they were not before.
func (t *Tally) Watch() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.since.IsZero() {
		t.since = time.Now()
	}
}

// start counts the start of a user's n-th playback.
func (t *Tally) start(user string, n int) {
	n = min(max(n, 1), maxReported+1)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.starts[n]++
	if n == 1 {
		return
	}
	who := maphash.String(t.seed, user)
	most, known := t.most[who]
	switch {
	case !known && len(t.most) >= maxWatchers:
		t.overflow = true
	case uint8(n) > most:
		t.most[who] = uint8(n)
	}
}

// selfRefused counts a playback that would probably have been refused because of
// its own viewer.
func (t *Tally) selfRefused() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.selves++
}

// Report is what limits would have done to the playbacks that were only
// observed on this node.
type Report struct {
	Store     string        `json:"store"`
	Since     time.Time     `json:"since"`
	Playbacks int64         `json:"playbacks"` // that started
	Limits    []LimitReport `json:"limits"`

	// SelfRefusals are playbacks that the configured limits would have refused, where
	// all that stood in the way had begun less than a minute before on what may be
	// the same client.
	SelfRefusals int64 `json:"suspectedSelfRefusals"`

	// There were more users with several playbacks than can be told apart: the
	// numbers of users are too low.
	UsersAtLeast bool `json:"usersAtLeast,omitempty"`
}

// LimitReport is what a limit would have refused.
type LimitReport struct {
	Limit     int   `json:"limit"`
	Users     int64 `json:"users"`
	Playbacks int64 `json:"playbacks"`
}

// Report says what was counted in a store of this name. It is not ok where
// nobody has watched.
func (t *Tally) Report(store string) (_ Report, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.since.IsZero() {
		return Report{}, false
	}
	r := Report{Store: store, Since: t.since, UsersAtLeast: t.overflow, SelfRefusals: t.selves}
	var users [maxReported + 2]int64
	for _, most := range t.most {
		users[most]++
	}
	var refused LimitReport
	for n := maxReported + 1; n > 1; n-- {
		refused.Users += users[n]
		refused.Playbacks += t.starts[n]
		refused.Limit = n - 1
		r.Limits = append(r.Limits, refused)
	}
	r.Playbacks = refused.Playbacks + t.starts[1]
	slices.SortFunc(r.Limits, func(a, b LimitReport) int { return cmp.Compare(a.Limit, b.Limit) })
	return r, true
}
