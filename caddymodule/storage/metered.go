package storage

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/streamguard/streamguard/audience"
	"github.com/streamguard/streamguard/gate"
	"github.com/streamguard/streamguard/guard"
)

// metered is a store whose operations are timed, traced and announced.
type metered struct {
	guard.Store
	failed func(error) // hears of each that it could not answer
	seen   *audience.Audience
	logged func(user string) string
}

// meter has a store metered.
func meter(s guard.Store, failed func(error), seen *audience.Audience, logged func(user string) string) guard.Store {
	m := metered{s, failed, seen, logged}
	if redis, ok := s.(remote); ok {
		return meteredRemote{m, redis}
	}
	return m
}

// Timeout is the store's own, for the keeper; 0 if it has none.
func (m metered) Timeout() time.Duration {
	if s, ok := m.Store.(interface{ Timeout() time.Duration }); ok {
		return s.Timeout()
	}
	return 0
}

func timed[T any](ctx context.Context, m metered, verb string, call func(context.Context) (T, error)) (T, error) {
	ctx, span := childSpan(ctx, verb)
	start := time.Now()
	if verb != "list" && verb != "batch" {
		m.seen.Calls(start, 1)
	}
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
func (m metered) Acquire(ctx context.Context, c guard.Claim, p guard.Policy) (guard.Verdict, error) {
	v, err := timed(ctx, m, "acquire", func(ctx context.Context) (guard.Verdict, error) { return m.Store.Acquire(ctx, c, p) })
	if err == nil {
		tell(c, p, v, m.logged)
	}
	return v, err
}

// tell counts and announces what a claim has changed. A guard that comes back
// is of a viewer who was told of before; who is only observed passes.
func tell(c guard.Claim, p guard.Policy, v guard.Verdict, logged func(string) string) {
	if v.Outcome == guard.Admitted && c.Intent == guard.Resume || p.Observe && !v.Outcome.Pass() {
		return
	}
	if v.Outcome == guard.Admitted {
		userGuards.Observe(float64(v.Held))
	}
	slotsTaken.Add(float64(v.Taken))
	announceVerdict(c, v, logged)
}

// Refresh implements guard.Store.
func (m metered) Refresh(ctx context.Context, user string, id guard.ID, p guard.Policy) (guard.Verdict, error) {
	return timed(ctx, m, "refresh", func(ctx context.Context) (guard.Verdict, error) { return m.Store.Refresh(ctx, user, id, p) })
}

// Release implements guard.Store.
func (m metered) Release(ctx context.Context, user string, id guard.ID, p guard.Policy) (bool, error) {
	return timed(ctx, m, "release", func(ctx context.Context) (bool, error) { return m.Store.Release(ctx, user, id, p) })
}

// Revoke implements guard.Store.
func (m metered) Revoke(ctx context.Context, user string, id guard.ID, p guard.Policy) (bool, error) {
	found, err := timed(ctx, m, "revoke", func(ctx context.Context) (bool, error) { return m.Store.Revoke(ctx, user, id, p) })
	if found {
		announceRevoked(m.logged(user), id, gate.Revoked)
	}
	return found, err
}

// CloseGuard implements guard.Store.
func (m metered) CloseGuard(ctx context.Context, user string, id guard.ID) (bool, error) {
	return timed(ctx, m, "close", func(ctx context.Context) (bool, error) { return m.Store.CloseGuard(ctx, user, id) })
}

// List implements guard.Store.
func (m metered) List(ctx context.Context, user string) ([]guard.Guard, error) {
	return timed(ctx, m, "list", func(ctx context.Context) ([]guard.Guard, error) { return m.Store.List(ctx, user) })
}

// remote is what a store on the network has besides.
type remote interface {
	guard.Batcher
	guard.Watcher
}

type meteredRemote struct {
	metered
	remote
}

// AcquireAll implements guard.Batcher.
func (m meteredRemote) AcquireAll(ctx context.Context, requests []guard.Request) []guard.Answer {
	batchSize.Observe(float64(len(requests)))
	m.seen.Calls(time.Now(), len(requests))
	answers, _ := timed(ctx, m.metered, "batch", func(ctx context.Context) (answers []guard.Answer, err error) {
		answers = m.remote.AcquireAll(ctx, requests)
		for i, a := range answers {
			if a.Err != nil {
				err = a.Err // one speaks for all
			} else {
				tell(requests[i].Claim, requests[i].Policy, a.Verdict, m.logged)
			}
		}
		return answers, err
	})
	return answers
}

// localStore is metered too, and what it grants is counted: the store is away.
type localStore struct {
	guard.Store
	logged func(user string) string
}

// Acquire implements guard.Store.
func (s localStore) Acquire(ctx context.Context, c guard.Claim, p guard.Policy) (guard.Verdict, error) {
	v, err := s.Store.Acquire(ctx, c, p)
	if v.Outcome == guard.Admitted && c.Intent != guard.Resume {
		localGrants.Inc()
	}
	tell(c, p, v, s.logged)
	return v, err
}

// childSpan starts the span of a store's operation below that of the request
// that waits for it. Calls share round trips to Redis, so a span of the
// client's own could belong to only one of them.
func childSpan(ctx context.Context, verb string) (context.Context, trace.Span) {
	span := trace.SpanFromContext(ctx)
	if !span.IsRecording() {
		return ctx, nil
	}
	return span.TracerProvider().Tracer("github.com/streamguard/streamguard").Start(ctx, "stream_guard "+verb, trace.WithSpanKind(trace.SpanKindClient))
}

func endSpan(span trace.Span, err error) {
	if span == nil {
		return
	}
	if err != nil {
		span.SetStatus(codes.Error, err.Error())
	}
	span.End()
}
