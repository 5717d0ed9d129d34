package lease

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/streamguard/streamguard/guard"
)

// maxLeft is how many calls requests may leave before the end.
const maxLeft = 1024

// Ask is Acquire for a request of a playback that is not Known. It repeats what
// the playback was denied lately, or asks the store, once for all requests that
// ask the same meanwhile: one of them is admitted, for the others the guard is
// there. A request that gives up leaves the call to the others.
func (k *Keeper) Ask(ctx context.Context, c guard.Claim, p guard.Policy) (guard.Verdict, error) {
	if v, ok := k.denied(&c, &p); ok {
		return v, nil
	}
	if err := ctx.Err(); err != nil { // an answer at once would race it
		return guard.Verdict{}, err
	}
	ended := k.ended.of(c.ID).Load() // a call sent before the last ending is no answer to a start after it
	key := fmt.Sprint(c.ID, c.Intent, k.hashOf(c), ended, p)
	result := k.asking.DoChan(key, func() (any, error) {
		defer k.turn(c.User)()
		v, err := k.acquireAnyhow(context.WithoutCancel(ctx), c, p)
		return &common{verdict: v}, err
	})
	select {
	case r := <-result:
		if r.Err != nil {
			return guard.Verdict{}, r.Err
		}
		s := r.Val.(*common)
		v := s.verdict
		if s.taken.Swap(true) && v.Outcome == guard.Admitted {
			v.Outcome = guard.Refreshed
		}
		return v, nil
	case <-ctx.Done():
		// A client that resets its streams as fast as it opens them would leave
		// any number of calls behind; servers bound that of requests.
		select {
		case k.left <- struct{}{}:
			go func() {
				<-result
				<-k.left
			}()
		default:
			<-result
		}
		return guard.Verdict{}, ctx.Err()
	}
}

// common is a verdict for several requests.
type common struct {
	verdict guard.Verdict
	taken   atomic.Bool // by one of them
}
