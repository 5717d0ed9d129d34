package guard

import (
	"strconv"
	"time"
)

// pace is how many times as fast as in life everything happens. Only the linker sets
// it, for a binary that plays a population in a fraction of its time (truth/):
//
//	-ldflags "-X github.com/streamguard/streamguard/guard.pace=5"
var pace = "1"

var paceFactor = func() time.Duration {
	n, err := strconv.ParseUint(pace, 10, 8)
	if err != nil || n == 0 {
		panic("guard.pace is not a number from 1 to 255: " + pace)
	}
	return time.Duration(n)
}()

// Paced is a time that players and viewers wait for, and that no option sets. What
// options set (interval, ttl) and what the network takes (timeouts) are not.
func Paced(d time.Duration) time.Duration { return d / paceFactor }
