package lease

import (
	"context"
	"time"

	"github.com/streamguard/streamguard/guard"
)

// While the store cannot answer, this node counts by itself, if the policy
// wants that.

// acquireAnyhow is Acquire, by this node's own count while the store is away. It
// begins the trial of a guard that media have made in the store.
func (k *Keeper) acquireAnyhow(ctx context.Context, c guard.Claim, p guard.Policy) (_ guard.Verdict, trial *Trial, _ error) {
	at, by := k.now(), byStore
	if l, known := k.leases.get(c.ID); known {
		k.speakFor(&c, &l, &p, at)
	}
	v, err := k.Store.Acquire(ctx, c, p)
	if err == nil {
		k.forgetLocal(c.User, c.ID)
		if v.Outcome == guard.Admitted && v.Guard.ID == c.ID && (c.Named || c.Nameless) {
			trial, by = k.try(&c, &v), onTrial
		}
	} else {
		v, err = k.acquireLocal(ctx, c, p, err)
		by = byNode
	}
	if err == nil {
		k.remember(at, c, p, v, by)
	}
	return v, trial, err
}

// acquireLocal answers for the store that could not, which err says.
func (k *Keeper) acquireLocal(ctx context.Context, c guard.Claim, p guard.Policy, err error) (guard.Verdict, error) {
	if !p.CountLocally {
		return guard.Verdict{}, err
	}
	k.onError(err)
	return k.local.Acquire(ctx, c, p)
}

// goOn has a playback that was asked about at a moment, without an answer, go on:
// as long as the store is away it is known, and then it is restored.
func (k *Keeper) goOn(at moment, id guard.ID, p guard.Policy) {
	k.leases.update(id, func(l *lease) {
		if at.since(l.at) < l.serves(&p) {
			l.at, l.ttl = at, milliseconds(slotTime(&p))
		}
	})
}

// aloneFor is for how long this node has counted a playback by itself.
func (k *Keeper) aloneFor(ctx context.Context, c guard.Claim, p guard.Policy) time.Duration {
	v, err := k.local.Refresh(ctx, c.User, c.ID, p)
	if err != nil || v.Outcome != guard.Refreshed {
		return 0
	}
	return v.Guard.ExpiresAt.Sub(v.Guard.CreatedAt) - p.Interval
}

// forgetLocal has this node no longer count a playback that the store knows
// of: neither beside it now, nor when the store is away again.
func (k *Keeper) forgetLocal(user string, id guard.ID) {
	k.local.Release(context.Background(), user, id, guard.Policy{})
}
