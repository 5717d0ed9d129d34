package lease

import "testing"

func TestEndings(t *testing.T) {
	const weeks = 1 << 31 // half of all moments
	id := claim(1).ID
	for _, c := range []struct {
		ended, at, now moment
		want           bool
	}{
		{0, 1, 1, false},
		{5, 5, 5, true},
		{5, 4, 7, true},
		{5, 6, 7, false},
		{3, 1<<32 - 5, 7, true},
		{1<<32 - 5, 3, 7, false},
		{5, weeks - 1, weeks, false},
		{5, weeks + 6, weeks + 7, false}, // it would seem to be ahead
	} {
		var e endings
		e.of(id).Store(uint32(c.ended))
		if got := e.since(id, c.at, c.now); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}
