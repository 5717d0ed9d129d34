package lease

import (
	"encoding/binary"
	"maps"
	"math/rand/v2"
	"testing"

	"github.com/streamguard/streamguard/guard"
)

// Whatever is done to a table, it holds what a map would.
func TestTableIsAMap(t *testing.T) {
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		table, want := newTable(MaxLeases), make(map[guard.ID]lease)
		ids := 1 << (4 + seed) // from a few to many in a shard
		if seed >= 12 {
			ids = 1 << 10
		}
		for range 30_000 {
			id := testID(rnd.IntN(ids))
			l := lease{at: moment(rnd.Uint32()), ttl: 1 + rnd.Uint32N(9)}
			switch p := rnd.IntN(1000); {
			case p < 500:
				table.put(id, l)
				want[id] = l
			case p < 700:
				table.update(id, func(there *lease) { there.held++ })
				if there, ok := want[id]; ok {
					there.held++
					want[id] = there
				}
			case p < 998:
				table.delete(id)
				delete(want, id)
			default:
				ttl := rnd.Uint32N(9)
				table.sweepAll(func(l *lease) bool { return l.ttl > ttl })
				maps.DeleteFunc(want, func(_ guard.ID, l lease) bool { return l.ttl > ttl })
			}
			got, ok := table.get(id)
			if there, wanted := want[id]; ok != wanted || got != there {
				t.Fatalf("seed %d: %v: %+v, %v, want %+v, %v", seed, id, got, ok, there, wanted)
			}
		}
		if table.len() != len(want) {
			t.Fatalf("seed %d: %d leases, want %d", seed, table.len(), len(want))
		}
		for id, there := range want {
			if got, ok := table.get(id); !ok || got != there {
				t.Fatalf("seed %d: %v: %+v, %v, want %+v", seed, id, got, ok, there)
			}
		}
	}
}

func TestTableShrinks(t *testing.T) {
	table := newTable(MaxLeases)
	const many = 100_000
	for n := range many {
		table.put(testID(n), lease{ttl: 1})
	}
	if n := table.slots(); n < many || n > 3*many {
		t.Errorf("%d slots for %d leases", n, many)
	}
	for n := 100; n < many; n++ {
		table.update(testID(n), func(l *lease) { l.ttl = 2 })
	}
	for range 10 { // shrinks by a step each time
		table.sweepAll(func(l *lease) bool { return l.ttl == 2 })
	}
	if n := table.slots(); table.len() != 100 || n > shards*minSlots {
		t.Errorf("%d slots for %d leases", n, table.len())
	}
	for n := range 100 {
		if _, ok := table.get(testID(n)); !ok {
			t.Fatalf("%d is lost", n)
		}
	}
}

func (t *table) sweepAll(over func(*lease) bool) {
	for i := range t.shards {
		t.sweep(i, over)
	}
}

func (t *table) slots() (n int) {
	for i := range t.shards {
		n += len(t.shards[i].slots)
	}
	return n
}

func testID(n int) (id guard.ID) {
	binary.BigEndian.PutUint64(id[:], uint64(n))
	return id
}
