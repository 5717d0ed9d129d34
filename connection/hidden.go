package connection

import (
	"hash/maphash"
	"sync"
	"time"
)

const (
	hiddenFor = 5 * time.Minute // at least, and twice that at most
	shards    = 64
	maxHidden = 1 << 14 // in a shard: 40 MB in all
)

// hidden are playbacks of which nothing is said, because they have connections
// that are not seen. A connection of HTTP/3 lives for half a minute after its last
// request. Where a shard is full nothing is said of any playback in it.
type hidden [shards]struct {
	mu          sync.Mutex
	now, before map[uint64]struct{} // hashes, which the garbage collector does not look at
	since       int64               // when now was begun
}

var seed = maphash.MakeSeed()

func (h *hidden) add(k key, at int64) {
	hash := maphash.Comparable(seed, k)
	s := &h[k.ID[0]%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	h.turn(k, at)
	if _, there := s.now[hash]; there || len(s.now) >= maxHidden {
		return
	}
	if s.now == nil {
		s.now = make(map[uint64]struct{})
	}
	s.now[hash] = struct{}{}
}

func (h *hidden) has(k key, at int64) bool {
	hash := maphash.Comparable(seed, k)
	s := &h[k.ID[0]%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	h.turn(k, at)
	_, now := s.now[hash]
	_, before := s.before[hash]
	return now || before || max(len(s.now), len(s.before)) >= maxHidden
}

// turn forgets what is old in a playback's shard.
func (h *hidden) turn(k key, at int64) {
	s := &h[k.ID[0]%shards]
	age := at - s.since
	if age < int64(hiddenFor) {
		return
	}
	s.before, s.now, s.since = s.now, nil, at
	if age >= 2*int64(hiddenFor) {
		s.before = nil
	}
}
