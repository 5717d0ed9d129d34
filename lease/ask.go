package lease

import (
	"context"
	"fmt"
	"sync/atomic"

	"golang.org/x/sync/singleflight"

	"github.com/streamguard/streamguard/guard"
)

// maxLeft is how many calls requests may leave before the end.
const maxLeft = 1024

// Ask is Acquire for a request of a playback that is not Known. It repeats what
// the playback was denied lately, or asks the store, once for all requests that
// ask the same meanwhile: one of them is admitted, for the others the guard is
// there. A request that gives up leaves the call to the others.
//
// The trial, nil for nearly all requests, has to be ended.
func (k *Keeper) Ask(ctx context.Context, c guard.Claim, p guard.Policy) (guard.Verdict, *Trial, error) {
	return k.ask(ctx, c, p, false)
}

// ask is Ask, in a call of its own if alone.
func (k *Keeper) ask(ctx context.Context, c guard.Claim, p guard.Policy, alone bool) (guard.Verdict, *Trial, error) {
	if v, ok := k.denied(&c, &p); ok {
		return v, nil, nil
	}
	if v, ok := k.vacant(&c, &p); ok {
		return v, nil, nil
	}
	k.hungUp(ctx, c.ID)
	if err := ctx.Err(); err != nil { // an answer at once would race it
		return guard.Verdict{}, nil, err
	}
	ended := k.ended.of(c.ID).Load() // a call sent before the last ending is no answer to a start after it
	key := fmt.Sprint(c.Intent, c.Anew, c.Waited, k.hashOf(c), ended, p)
	if alone {
		key += fmt.Sprintf("%p", &c)
	}
	result := k.asking.DoChan(key, func() (any, error) {
		defer k.turn(c.User)()
		if v, ok := k.vacant(&c, &p); ok { // since another has asked just now
			return &common{verdict: v}, nil
		}
		if held, trial, ok := k.Known(&c, &p); ok {
			return &common{verdict: isKnown(&c, &p, held), trial: trial}, nil
		}
		v, trial, err := k.acquireAnyhow(guard.Abandonable(ctx), c, p)
		return &common{verdict: v, trial: trial}, err
	})
	select {
	case r := <-result:
		if r.Err != nil {
			return guard.Verdict{}, nil, r.Err
		}
		v, trial, ok := r.Val.(*common).take()
		if onlyLooked(&c, &v) { // for another who has gone
			return k.ask(ctx, c, p, true)
		}
		if !ok { // undone
			return k.Ask(ctx, c, p)
		}
		return v, trial, nil
	case <-ctx.Done():
		// A client that resets its streams as fast as it opens them would leave
		// any number of calls behind; servers bound that of requests.
		select {
		case k.left <- struct{}{}:
			go func() {
				leave(<-result)
				<-k.left
			}()
		default:
			leave(<-result)
		}
		return guard.Verdict{}, nil, ctx.Err()
	}
}

// onlyLooked reports whether the store took a start for a look, since whoever asked for
// it had gone (guard.Abandoned).
func onlyLooked(c *guard.Claim, v *guard.Verdict) bool {
	return c.Intent == guard.Play && v.Outcome == guard.Vacant
}

// isKnown is the verdict of a request of a playback that is.
func isKnown(c *guard.Claim, p *guard.Policy, held int) guard.Verdict {
	return guard.Verdict{Outcome: guard.Known, Guard: guard.Guard{ID: c.ID}, Held: held, Limit: p.Limit}
}

// common is a verdict for several requests.
type common struct {
	verdict guard.Verdict
	trial   *Trial      // of the guard that was made, if there is one
	taken   atomic.Bool // by one of them
}

// take is what one of the requests is told. It is not ok where the guard has been
// undone since, because another of them was not delivered.
func (s *common) take() (v guard.Verdict, trial *Trial, ok bool) {
	v = s.verdict
	if !s.taken.Swap(true) {
		return v, s.trial, true
	}
	if v.Outcome == guard.Admitted {
		v.Outcome = guard.Refreshed
	}
	if s.trial == nil {
		return v, nil, true
	}
	trial, ok = s.trial.join()
	return v, trial, ok
}

// leave ends a request whose client has gone, and which is told nothing. Perhaps it
// would have been delivered.
func leave(r singleflight.Result) {
	if r.Err == nil {
		r.Val.(*common).trial.End(true)
	}
}
