package gate

import (
	"context"
	"slices"

	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/lease"
	"github.com/streamguard/streamguard/problem"
)

// With Observe everybody is admitted and gets a guard, so that the store knows
// how many playbacks a user has. What the limit would have made of each is said
// of the request that starts it.

// Observed is the policy that refuses nobody and replaces nothing.
func Observed(p guard.Policy) guard.Policy {
	p.Observe, p.Reclaim = true, guard.ReclaimOff
	return p
}

// observe counts a playback that has just been admitted, or is one too many to be
// counted. It returns what the policy would have refused it with.
func (g *Gate) observe(ctx context.Context, r *Request, d *Decision, claim guard.Claim, v guard.Verdict) *problem.Problem {
	if v.Outcome == guard.Admitted { // an uncounted playback comes here again and again
		g.Tally.start(r.User, v.Held)
	}
	would := g.wouldBe(ctx, claim, r.Policy, v)
	switch {
	case !would.Outcome.Pass():
		if d.SelfRefused = refusesItself(&claim, &would); d.SelfRefused {
			g.Tally.selfRefused()
		}
		return problem.Refused(would)
	case len(would.Replaced) > would.Taken:
		d.Word = WouldReplace
	}
	return nil
}

// wouldBe is the verdict that the policy would have come to about a playback
// that was admitted anyway.
func (g *Gate) wouldBe(ctx context.Context, c guard.Claim, policy guard.Policy, v guard.Verdict) guard.Verdict {
	if v.Held <= policy.Limit && len(policy.Rules) == 0 {
		return v
	}
	guards, err := g.Keeper.List(ctx, c.User)
	if err != nil { // it counts here alone at the moment
		guards, _ = g.Local.List(ctx, c.User)
	}
	c.Patience = 0 // what might be over is counted as it is
	at := v.Guard.CreatedAt
	if v.Outcome == guard.Uncounted { // it has no guard of its own, and all others were there before
		for _, o := range guards {
			if o.CreatedAt.After(at) {
				at = o.CreatedAt
			}
		}
	}
	others := slices.DeleteFunc(guards, func(o guard.Guard) bool {
		return o.ID == v.Guard.ID || o.CreatedAt.After(at)
	})
	return guard.NewLedger(others).Acquire(at, c, policy)
}

// Observer is a keeper for explicit calls: one whose policy only observes is
// refused nothing.
type Observer struct {
	*lease.Keeper
	Tally  *Tally
	Ending <-chan struct{} // closed when nothing is to wait any more
	Hurry  Hurry           // as the Gate's
}

// Acquire implements guard.Store. A start that is in doubt waits. Of who is only
// observed, a playback that was ended gets a guard under another id, the same each
// time.
func (o Observer) Acquire(ctx context.Context, c guard.Claim, p guard.Policy) (guard.Verdict, error) {
	if !p.Observe {
		c.Patience = min(shortPatience, p.TTL)
		return WaitOut(ctx, o.Ending, o.Keeper, c, o.Hurry.asking(ctx, func(c guard.Claim) (guard.Verdict, error) { return o.Keeper.Acquire(ctx, c, p) }))
	}
	v, err := o.Keeper.Acquire(ctx, c, p)
	if err == nil && v.Outcome.Ended() {
		c.ID = guard.DeriveID(c.User, c.Device, "revoked\x00"+c.ID.String())
		v, err = o.Keeper.Acquire(ctx, c, p)
	}
	if v.Outcome == guard.Admitted {
		o.Tally.start(c.User, v.Held)
	}
	return v, err
}

// Refresh implements guard.Store. A guard that was revoked is just not there
// for who is only observed.
func (o Observer) Refresh(ctx context.Context, user string, id guard.ID, p guard.Policy) (guard.Verdict, error) {
	v, err := o.Keeper.Refresh(ctx, user, id, p)
	return absentIfRevoked(v, p), err
}

// Keep is Refresh for what players report.
func (o Observer) Keep(ctx context.Context, c guard.Claim, p guard.Policy) (guard.Verdict, error) {
	v, err := o.Keeper.Keep(ctx, c, p)
	return absentIfRevoked(v, p), err
}

func absentIfRevoked(v guard.Verdict, p guard.Policy) guard.Verdict {
	if p.Observe && v.Outcome.Ended() {
		v.Outcome = guard.Absent
	}
	return v
}
