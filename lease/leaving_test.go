package lease

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/streamguard/streamguard/guard"
)

func TestWhatOtherNodesAreAboutToClose(t *testing.T) {
	run(t, func(t *testing.T, _ *counter, here, there node) {
		inTheWay := []guard.Guard{{ID: guard.ID{1}}, {ID: guard.ID{2}}}
		expect := func(want time.Duration) {
			t.Helper()
			synctest.Wait()
			if got := there.Leaving(inTheWay); got != want {
				t.Errorf("a start waits %v, want %v", got, want)
			}
		}
		expect(0)
		here.Leaves(guard.ID{3}, 5*time.Second)
		expect(0)
		here.Leaves(guard.ID{1}, 5*time.Second)
		expect(5*time.Second + reaching)
		time.Sleep(leavingFor / 4)
		here.Leaves(guard.ID{2}, 8*time.Second)
		expect(5*time.Second + reaching - leavingFor/4)
		time.Sleep(5*time.Second + reaching - leavingFor/4)
		expect(8*time.Second + leavingFor/4 - 5*time.Second)
		time.Sleep(leavingFor)
		expect(0)
		here.Leaves(guard.ID{1}, 5*time.Second) // a generation later
		time.Sleep(2 * time.Second)
		expect(3*time.Second + reaching)
	})
}

// Whatever others say, a node remembers so much of it.
func TestWhatOthersSayIsBounded(t *testing.T) {
	var l leaving
	now := time.Now()
	for i := range 3 * maxLeaving {
		l.note(guard.News{ID: guard.ID{byte(i), byte(i >> 8), byte(i >> 16)}, ClosedIn: time.Second}, now)
	}
	if len(l.lately) != maxLeaving || len(l.early) != 0 {
		t.Errorf("%d and %d are remembered", len(l.lately), len(l.early))
	}
	for i := range 3 {
		l.note(guard.News{ID: guard.ID{byte(i)}, ClosedIn: time.Second}, now.Add(time.Duration(i)*leavingFor))
	}
	if len(l.lately) != 1 || len(l.early) != 1 {
		t.Errorf("later %d and %d are remembered", len(l.lately), len(l.early))
	}
}
