package caddymodule

import (
	"context"
	"errors"
	"time"

	"github.com/streamguard/streamguard/guard"
)

// observed is a store whose operations are timed, traced and announced.
type observed struct {
	guard.Store
	failed func(error) // hears of each that it could not answer
}

// observe has a store observed.
func observe(s guard.Store, failed func(error)) guard.Store {
	m := observed{s, failed}
	if redis, ok := s.(remote); ok {
		return observedRemote{m, redis}
	}
	return m
}

// Timeout is the store's own, for the keeper; 0 if it has none.
func (m observed) Timeout() time.Duration {
	if s, ok := m.Store.(interface{ Timeout() time.Duration }); ok {
		return s.Timeout()
	}
	return 0
}

func timed[T any](ctx context.Context, m observed, verb string, call func(context.Context) (T, error)) (T, error) {
	ctx, span := childSpan(ctx, verb)
	start := time.Now()
	v, err := call(ctx)
	result := "ok"
	switch {
	case err != nil && errors.Is(ctx.Err(), context.Canceled):
		result = "canceled" // nobody waits any more: it is no fault of the store
	case err != nil:
		result = "error"
		m.failed(err)
	}
	storeDuration.WithLabelValues(verb, result).Observe(time.Since(start).Seconds())
	endSpan(span, err)
	return v, err
}

// Acquire implements guard.Store.
func (m observed) Acquire(ctx context.Context, c guard.Claim, p guard.Policy) (guard.Verdict, error) {
	v, err := timed(ctx, m, "acquire", func(ctx context.Context) (guard.Verdict, error) { return m.Store.Acquire(ctx, c, p) })
	if err == nil {
		tell(c, p, v)
	}
	return v, err
}

// tell counts and announces what a claim has changed. A guard that comes back
// is of a viewer who was told of before; who is only observed passes.
func tell(c guard.Claim, p guard.Policy, v guard.Verdict) {
	if v.Outcome == guard.Admitted && c.Intent == guard.Resume || p.Observe && !v.Outcome.Pass() {
		return
	}
	if v.Outcome == guard.Admitted {
		userGuards.Observe(float64(v.Held))
	}
	announceVerdict(c, v)
}

// Refresh implements guard.Store.
func (m observed) Refresh(ctx context.Context, user string, id guard.ID, p guard.Policy) (guard.Verdict, error) {
	return timed(ctx, m, "refresh", func(ctx context.Context) (guard.Verdict, error) { return m.Store.Refresh(ctx, user, id, p) })
}

// Release implements guard.Store.
func (m observed) Release(ctx context.Context, user string, id guard.ID, p guard.Policy) (bool, error) {
	return timed(ctx, m, "release", func(ctx context.Context) (bool, error) { return m.Store.Release(ctx, user, id, p) })
}

// Revoke implements guard.Store.
func (m observed) Revoke(ctx context.Context, user string, id guard.ID, p guard.Policy) (bool, error) {
	found, err := timed(ctx, m, "revoke", func(ctx context.Context) (bool, error) { return m.Store.Revoke(ctx, user, id, p) })
	if found {
		announceRevoked(user, id)
	}
	return found, err
}

// List implements guard.Store.
func (m observed) List(ctx context.Context, user string) ([]guard.Guard, error) {
	return timed(ctx, m, "list", func(ctx context.Context) ([]guard.Guard, error) { return m.Store.List(ctx, user) })
}

// remote is what a store on the network has besides.
type remote interface {
	guard.Batcher
	guard.Watcher
}

type observedRemote struct {
	observed
	remote
}

// AcquireAll implements guard.Batcher.
func (m observedRemote) AcquireAll(ctx context.Context, requests []guard.Request) []guard.Answer {
	batchSize.Observe(float64(len(requests)))
	answers, _ := timed(ctx, m.observed, "batch", func(ctx context.Context) (answers []guard.Answer, err error) {
		answers = m.remote.AcquireAll(ctx, requests)
		for i, a := range answers {
			if a.Err != nil {
				err = a.Err // one speaks for all
			} else {
				tell(requests[i].Claim, requests[i].Policy, a.Verdict)
			}
		}
		return answers, err
	})
	return answers
}

// localStore is observed too, and what it grants is counted: the store is away.
type localStore struct{ guard.Store }

// Acquire implements guard.Store.
func (s localStore) Acquire(ctx context.Context, c guard.Claim, p guard.Policy) (guard.Verdict, error) {
	v, err := s.Store.Acquire(ctx, c, p)
	if v.Outcome == guard.Admitted && c.Intent != guard.Resume {
		localGrants.Inc()
	}
	tell(c, p, v)
	return v, err
}
