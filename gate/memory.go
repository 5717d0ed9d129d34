package gate

import (
	"sync"
	"time"
)

// maxRemembered is how many things a memory holds; one more drives any other out.
const maxRemembered = 1 << 14

// memory is what a node has seen lately, by a hash of what it was seen of. That it
// forgets costs somebody a guard of his own or a short wait, and never lets anybody
// past a limit.
type memory[V any] struct {
	now func() time.Time // nil: time.Now
	mu  sync.Mutex
	of  map[uint64]remembered[V]
}

type remembered[V any] struct {
	value V
	until time.Time
}

func (m *memory[V]) get(key uint64) (v V, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	found, ok := m.of[key]
	if !ok || !m.at().Before(found.until) {
		return v, false
	}
	return found.value, true
}

func (m *memory[V]) put(key uint64, v V, lasts time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.of == nil {
		m.of = make(map[uint64]remembered[V])
	}
	if _, there := m.of[key]; !there && len(m.of) >= maxRemembered {
		for some := range m.of {
			delete(m.of, some)
			break
		}
	}
	m.of[key] = remembered[V]{v, m.at().Add(lasts)}
}

func (m *memory[V]) at() time.Time {
	if m.now == nil {
		return time.Now()
	}
	return m.now()
}

// goBy has the memory go by another clock.
func (m *memory[V]) goBy(clock func() time.Time) { m.now = clock }
