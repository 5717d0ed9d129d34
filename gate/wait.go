package gate

import (
	"context"
	"time"

	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/lease"
)

// afterPatience is how long a start goes on waiting that others have doubted for.
var afterPatience = guard.Paced(5 * time.Second)

// asks asks about a start. Where that is in doubt it says when to ask again.
type asks func(guard.Claim) (v guard.Verdict, again time.Duration, err error)

// WaitOut asks about a start, and as long as that is in doubt waits and asks again:
// for the claim's patience and 5 s more at most, or until ending is closed. Where
// too many wait already the start is refused at once.
func WaitOut(ctx context.Context, ending <-chan struct{}, k *lease.Keeper, c guard.Claim, ask asks) (guard.Verdict, error) {
	v, again, err := ask(c)
	if err != nil || v.Outcome != guard.Doubted {
		return v, err
	}
	news, leave, ok := k.Wait(&c, &v)
	if !ok {
		return refused(v), nil
	}
	defer leave()
	c.Waited = true
	last := time.NewTimer(c.Patience + afterPatience)
	defer last.Stop()
	for heard := news(); err == nil && v.Outcome == guard.Doubted; {
		next := time.NewTimer(again)
		select {
		case <-next.C:
		case <-heard:
		case <-last.C:
			return refused(v), nil
		case <-ending:
			return refused(v), nil
		case <-ctx.Done():
			err = ctx.Err()
		}
		next.Stop()
		if err == nil {
			heard = news() // of what happens while the store answers
			k.Reconsider(c.ID)
			v, again, err = ask(c)
		}
	}
	return v, err
}

// refused is the verdict of a start that cannot wait any longer.
func refused(v guard.Verdict) guard.Verdict {
	v.Outcome = guard.Rejected
	return v
}
