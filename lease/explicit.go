package lease

import (
	"cmp"
	"context"
	"strings"

	"github.com/streamguard/streamguard/guard"
)

// An explicit call is a sign of life like a request for media, but it names
// little more than its guard's id. So that the guard comes back whole if the
// store has lost it, what the store said of it last is remembered beside the
// lease; beyond maxNamed, it comes back with what the call says.
const maxNamed = 1 << 16 // at most 1900 bytes each

// Acquire implements guard.Store. Where the store has lost the guard and has no
// slot for a new one, the guard is restored.
func (k *Keeper) Acquire(ctx context.Context, c guard.Claim, p guard.Policy) (guard.Verdict, error) {
	k.hungUp(ctx, c.ID)
	defer k.turn(c.User)()
	at := k.now()
	v, err := k.Store.Acquire(ctx, c, p)
	if its := c; err == nil && v.Outcome == guard.Rejected && k.owns(&its) {
		v, err = k.restore(ctx, its, p, v)
	}
	if err == nil {
		k.heard(at, c, p, v)
	}
	if err == nil && onlyLooked(&c, &v) { // that is no refusal
		err = ctx.Err()
	}
	return v, err
}

// Refresh implements guard.Store. Where the store has lost the guard, it is
// restored.
func (k *Keeper) Refresh(ctx context.Context, user string, id guard.ID, p guard.Policy) (guard.Verdict, error) {
	return k.refresh(ctx, guard.Claim{User: user, ID: id}, p)
}

// Keep is Refresh for a playback that may be known: then the outcome is Known
// and the store is not asked, or asked later.
func (k *Keeper) Keep(ctx context.Context, c guard.Claim, p guard.Policy) (guard.Verdict, error) {
	if held, trial, ok := k.Known(&c, &p); ok {
		trial.End(true)
		return isKnown(&c, &p, held), nil
	}
	return k.refresh(ctx, c, p)
}

func (k *Keeper) refresh(ctx context.Context, c guard.Claim, p guard.Policy) (guard.Verdict, error) {
	ctx = context.WithoutCancel(ctx) // whoever gives a sign of life may be gone before the answer
	k.hungUp(ctx, c.ID)
	at, owned := k.now(), k.owns(&c)
	v, err := k.Store.Refresh(ctx, c.User, c.ID, p)
	if err == nil && v.Outcome == guard.Absent && owned {
		v, err = k.restore(ctx, c, p, v)
	}
	switch {
	case err == nil && (owned || v.Outcome != guard.Absent):
		k.heard(at, c, p, v)
	case err != nil && owned:
		k.goOn(at, c.ID, p)
	}
	return v, err
}

// restore brings back a guard that the store has lost, if this node has a lease
// of it. Otherwise it answers what the store did.
func (k *Keeper) restore(ctx context.Context, c guard.Claim, p guard.Policy, otherwise guard.Verdict) (guard.Verdict, error) {
	if k.intend(ctx, &c, &p, k.now()); c.Intent != guard.Resume {
		return otherwise, nil
	}
	v, err := k.Store.Acquire(ctx, c, p)
	switch {
	case err != nil:
		return v, err
	case v.Outcome != guard.Admitted && v.Outcome != guard.Refreshed: // it was released, say
		return otherwise, nil
	}
	v.Outcome = guard.Refreshed
	return v, nil
}

// heard keeps in mind what the store has said to an explicit call.
func (k *Keeper) heard(at moment, c guard.Claim, p guard.Policy, v guard.Verdict) {
	k.forgetLocal(c.User, c.ID)
	k.remember(at, c, p, v, byStore)
	if g := v.Guard; g.ID == c.ID && k.named.Size() < maxNamed {
		k.named.Store(c.ID, guard.Claim{
			User: strings.Clone(c.User), Stream: strings.Clone(g.Stream), Device: strings.Clone(g.Device), Labels: guard.Labels(strings.Clone(string(g.Labels))),
		})
	}
}

// owns reports whether the guard of a claim is its user's. Another user may have
// guessed the id. It adds to the claim what is remembered of the guard.
func (k *Keeper) owns(c *guard.Claim) bool {
	return k.recall(c) || c.ID.Of(c.User, c.Device) || c.ID.Of(c.User, "")
}

// recall adds to a claim what is remembered of its guard, if anything.
func (k *Keeper) recall(c *guard.Claim) bool {
	g, named := k.named.Load(c.ID)
	if !named || g.User != c.User {
		return false
	}
	c.Stream, c.Device, c.Labels = cmp.Or(c.Stream, g.Stream), cmp.Or(c.Device, g.Device), cmp.Or(c.Labels, g.Labels)
	return true
}

// sweepNamed forgets what no lease needs any more.
func (k *Keeper) sweepNamed() {
	k.named.Range(func(id guard.ID, _ guard.Claim) bool {
		if _, known := k.leases.get(id); !known {
			k.named.Delete(id)
		}
		return true
	})
}
