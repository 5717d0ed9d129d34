package lease

import (
	"context"
	"slices"
	"time"

	"github.com/streamguard/streamguard/guard"
)

const (
	resumeMargin = time.Second // a refresh sent this much before the guard's end comes in time, if the store's timeout is no longer
	refreshers   = 2           // batches of refreshes under way at once
	maxBatch     = 64          // refreshes in a batch: Redis is done with it in half a millisecond
	queued       = 8192        // refreshes waiting; one more is tried again later
)

// linger is how long a refresh waits for others: it has a minute to spare.
var linger = guard.Paced(100 * time.Millisecond)

// refreshAfter is a third of the interval, or up to a tenth less: playbacks
// that started together do not refresh together for long.
func refreshAfter(id guard.ID, interval time.Duration) time.Duration {
	third := interval / 3
	return third - third/10*time.Duration(id[15])/256
}

// queueRefresh queues one refresh of a lease.
func (k *Keeper) queueRefresh(c guard.Claim, p guard.Policy) {
	won := false
	k.leases.update(c.ID, func(l *lease) { won, l.refreshing = !l.refreshing, true })
	if !won {
		return
	}
	if k.inline {
		k.refreshBatch(k.life, []guard.Request{{Claim: c, Policy: p}})
		return
	}
	select {
	case k.due <- guard.Request{Claim: c, Policy: p}:
	default: // too many are waiting: another request will try again
		k.leases.update(c.ID, func(l *lease) { l.refreshing = false })
	}
}

// refreshQueued refreshes what is queued, in batches.
func (k *Keeper) refreshQueued(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		var batch []guard.Request
		select {
		case <-ctx.Done():
			return
		case r := <-k.due:
			batch = append(batch, r)
		}
		timer.Reset(linger)
		for lingering := true; lingering && len(batch) < maxBatch; {
			select {
			case r := <-k.due:
				batch = append(batch, r)
			case <-timer.C:
				lingering = false
			}
		}
		k.refreshBatch(ctx, batch)
	}
}

// refreshBatch refreshes what has a lease still. What was ended or doubted since it
// was queued has none, and was asked for before that: it is no sign of life.
func (k *Keeper) refreshBatch(ctx context.Context, batch []guard.Request) {
	batch = slices.DeleteFunc(batch, func(r guard.Request) bool {
		_, known := k.leases.get(r.Claim.ID)
		return !known
	})
	if len(batch) == 0 {
		return
	}
	at := k.now()
	before := make([]grant, len(batch))
	for i := range batch {
		before[i] = k.intend(ctx, &batch[i].Claim, &batch[i].Policy, at)
	}
	answers := k.acquireAll(ctx, batch)
	if ctx.Err() != nil {
		return // closed: calls that this cut short are no trouble with the store
	}
	for i, a := range answers {
		c, p, v, by := batch[i].Claim, batch[i].Policy, a.Verdict, byStore
		if a.Err == nil {
			k.forgetLocal(c.User, c.ID)
		} else {
			v, a.Err = k.acquireLocal(ctx, c, p, a.Err)
			by = before[i]
		}
		if a.Err == nil {
			k.remember(at, c, p, v, by)
			continue
		}
		k.onError(a.Err)
		// The store is away: its viewers go on until it is back, and are
		// restored then.
		k.leases.update(c.ID, func(l *lease) { l.at, l.ttl, l.refreshing = at, milliseconds(slotTime(&p)), false })
	}
}

// intend has a request resume what its lease is of, if it reaches the store before
// the slot can be another's. It returns who granted the lease.
func (k *Keeper) intend(ctx context.Context, c *guard.Claim, p *guard.Policy, at moment) grant {
	l, known := k.leases.get(c.ID)
	switch {
	case !known:
	case l.by == byAnother:
		k.speakFor(c, &l, p, at)
	case l.by != onTrial && k.certain(&l, p, at):
		c.Intent = guard.Resume
		k.recall(c)
		if l.by == byNode {
			c.Alone = k.aloneFor(ctx, *c, *p)
		}
	}
	return l.by
}

// certain reports whether a claim that is sent now reaches the store before the
// slot can be another's. One that is sent later than a margin before the guard's
// end may not; the margin is at most half of the guard's time, so that every store
// restores what it has lost.
func (k *Keeper) certain(l *lease, p *guard.Policy, now moment) bool {
	return l.serves(p)-now.since(l.at) > min(max(resumeMargin, k.timeout), l.serves(p)/2)
}

func (k *Keeper) acquireAll(ctx context.Context, batch []guard.Request) []guard.Answer {
	if b, ok := k.Store.(guard.Batcher); ok {
		return b.AcquireAll(ctx, batch)
	}
	answers := make([]guard.Answer, len(batch))
	for i, r := range batch {
		answers[i].Verdict, answers[i].Err = k.Store.Acquire(ctx, r.Claim, r.Policy)
	}
	return answers
}
