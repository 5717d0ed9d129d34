package guard

import (
	"testing"
	"time"
)

// Only a binary that is linked for it is faster than life.
func TestPaceIsThatOfLife(t *testing.T) {
	if got := Paced(5 * time.Second); got != 5*time.Second || Settle != got || Watched != time.Second {
		t.Errorf("5s takes %v, Settle %v, Watched %v", got, Settle, Watched)
	}
}
