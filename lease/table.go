package lease

import (
	"hash/maphash"
	"sync"
	"sync/atomic"

	"github.com/streamguard/streamguard/guard"
)

const (
	shards   = 256
	minSlots = 8
	atOnce   = 1024 // slots swept under one lock
)

// table keeps leases by guard id: open addressing with linear probing, in
// shards. There is no pointer in it, so that a million leases cost the garbage
// collector nothing; a map of any kind would have it look at each of them
// (docs/performance.md). 32 bytes a slot, of which three to six in eight are
// taken once a shard has grown.
type table struct {
	max    int // leases; one more is not kept
	seed   maphash.Seed
	shards [shards]shard
	size   atomic.Int64
}

type shard struct {
	mu    sync.Mutex
	slots []slot // a power of two of them, or none
	taken int
	_     [64 - 8 - 24 - 8]byte // no line of the CPU's cache has two
}

// slot is free while its lease's ttl is 0.
type slot struct {
	id    guard.ID
	lease lease
}

func newTable(max int) *table { return &table{max: max, seed: maphash.MakeSeed()} }

// lockShard returns the shard of an id, locked, and the id's hash.
func (t *table) lockShard(id *guard.ID) (*shard, uint64) {
	h := maphash.Bytes(t.seed, id[:])
	s := &t.shards[h%shards]
	s.mu.Lock()
	return s, h / shards
}

func (t *table) get(id guard.ID) (lease, bool) {
	s, h := t.lockShard(&id)
	defer s.mu.Unlock()
	if i, found := s.find(&id, h); found {
		return s.slots[i].lease, true
	}
	return lease{}, false
}

func (t *table) put(id guard.ID, l lease) {
	s, h := t.lockShard(&id)
	defer s.mu.Unlock()
	i, found := s.find(&id, h)
	if !found {
		if t.len() >= t.max {
			return
		}
		if s.taken+1 > len(s.slots)/4*3 {
			t.resize(s, max(2*len(s.slots), minSlots))
			i, _ = s.find(&id, h)
		}
		s.taken++
		t.size.Add(1)
	}
	s.slots[i] = slot{id, l}
}

// update changes a lease that is there.
func (t *table) update(id guard.ID, change func(*lease)) {
	s, h := t.lockShard(&id)
	defer s.mu.Unlock()
	if i, found := s.find(&id, h); found {
		change(&s.slots[i].lease)
	}
}

func (t *table) delete(id guard.ID) {
	s, h := t.lockShard(&id)
	defer s.mu.Unlock()
	if i, found := s.find(&id, h); found {
		t.free(s, i)
	}
}

func (t *table) len() int { return int(t.size.Load()) }

// sweep deletes the leases of one shard that are over, a few slots at a time:
// a request waits for microseconds at most.
func (t *table) sweep(n int, over func(*lease) bool) {
	for start, more := 0, true; more; start += atOnce {
		more = t.sweepSome(&t.shards[n], start, over)
	}
}

func (t *table) sweepSome(s *shard, start int, over func(*lease) bool) (more bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := start; i < min(start+atOnce, len(s.slots)); i++ {
		// What follows moves up into the slot that was freed.
		for l := &s.slots[i].lease; l.ttl != 0 && over(l); {
			t.free(s, i)
		}
	}
	if start+atOnce < len(s.slots) {
		return true
	}
	if s.taken < len(s.slots)/8 && len(s.slots) > minSlots {
		t.resize(s, len(s.slots)/4)
	}
	return false
}

// find is where an id is, or else the free slot where it belongs, if there are
// slots at all.
func (s *shard) find(id *guard.ID, hash uint64) (int, bool) {
	if len(s.slots) == 0 {
		return 0, false
	}
	mask := len(s.slots) - 1
	for i := int(hash) & mask; ; i = (i + 1) & mask {
		switch at := &s.slots[i]; {
		case at.lease.ttl == 0:
			return i, false
		case at.id == *id:
			return i, true
		}
	}
}

// free empties a slot and closes the gap: what follows and may stand there
// moves up.
func (t *table) free(s *shard, gap int) {
	mask := len(s.slots) - 1
	for i := (gap + 1) & mask; s.slots[i].lease.ttl != 0; i = (i + 1) & mask {
		home := int(maphash.Bytes(t.seed, s.slots[i].id[:])/shards) & mask
		if (i-home)&mask >= (i-gap)&mask {
			s.slots[gap] = s.slots[i]
			gap = i
		}
	}
	s.slots[gap] = slot{}
	s.taken--
	t.size.Add(-1)
}

func (t *table) resize(s *shard, slots int) {
	before := s.slots
	s.slots = make([]slot, slots)
	for i := range before {
		if at := &before[i]; at.lease.ttl != 0 {
			j, _ := s.find(&at.id, maphash.Bytes(t.seed, at.id[:])/shards)
			s.slots[j] = *at
		}
	}
}
