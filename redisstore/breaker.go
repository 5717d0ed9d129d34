package redisstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/sony/gobreaker/v2"
)

const (
	tripAfter  = 2           // failures in a row that open a breaker
	probeAfter = time.Second // how long it stays open before one call may try
)

// breaker is a hook on the client of one server: while the server does not
// answer, calls to it fail at once instead of waiting each for its timeout. In
// a Cluster the others go on.
type breaker struct {
	*gobreaker.CircuitBreaker[struct{}]
	timeout time.Duration           // of a call, and of those together that share a round trip
	cause   *atomic.Pointer[string] // why the last call failed
	explain func(error) error
}

// newBreaker makes the breaker of a server. onTry hears when it opens and each
// time that a call may try; like onAway it must not block.
func newBreaker(server string, timeout time.Duration, onAway func(server string, away bool), onTry func()) breaker {
	return breaker{timeout: timeout, cause: new(atomic.Pointer[string]), CircuitBreaker: gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{
		Name:         server,
		Timeout:      probeAfter,
		ReadyToTrip:  func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= tripAfter },
		IsSuccessful: answered,
		IsExcluded: func(err error) bool {
			_, cut := errors.AsType[cutShort](err)
			return cut || errors.Is(err, context.Canceled)
		},
		OnStateChange: func(server string, from, to gobreaker.State) {
			if to != gobreaker.StateClosed {
				onTry()
			}
			switch {
			case from == gobreaker.StateClosed:
				onAway(server, true)
			case to == gobreaker.StateClosed:
				onAway(server, false)
			}
		},
	})}
}

// answered reports whether the server said anything, be it an error.
func answered(err error) bool {
	_, said := errors.AsType[redis.Error](err)
	return err == nil || said
}

// DialHook implements redis.Hook.
func (breaker) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessHook implements redis.Hook.
func (b breaker) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		return b.try(ctx, func(ctx context.Context) error { return next(ctx, cmd) }, cmd)
	}
}

// ProcessPipelineHook implements redis.Hook.
func (b breaker) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		return b.try(ctx, func(ctx context.Context) error {
			err := next(ctx, cmds)
			if err != nil && !slices.ContainsFunc(cmds, func(c redis.Cmder) bool { return c.Err() != nil }) {
				for _, cmd := range cmds { // none was sent: a server's answer to connecting is in none of them
					cmd.SetErr(err)
				}
			}
			return err
		}, cmds...)
	}
}

// inside marks the context of a call that the breaker let through: connecting
// makes calls of its own.
type inside struct{}

// cutShort is the error of a call whose caller waited for less than the store's
// timeout, in vain: it says nothing about the server.
type cutShort struct{ error }

func (e cutShort) Unwrap() error { return e.error }

func (b breaker) try(ctx context.Context, call func(context.Context) error, cmds ...redis.Cmder) error {
	if ctx.Value(inside{}) != nil {
		return call(ctx)
	}
	called := false
	end, bounded := ctx.Deadline()
	hurried := bounded && time.Until(end) < b.timeout*9/10 // a tenth is what the way here may have taken
	_, err := b.Execute(func() (struct{}, error) {
		called = true
		ctx, cancel := context.WithTimeout(context.WithValue(ctx, inside{}, true), b.timeout)
		defer cancel()
		err := call(ctx)
		switch {
		case answered(err), errors.Is(err, context.Canceled):
		case hurried && !time.Now().Before(end):
			err = cutShort{err}
		default:
			why := b.explain(err).Error()
			if errors.Is(err, context.DeadlineExceeded) {
				why = fmt.Sprintf("no answer within %v", b.timeout)
			}
			b.cause.Store(&why)
		}
		return struct{}{}, err
	})
	if !called {
		if why := b.cause.Load(); why != nil {
			err = fmt.Errorf("%w: %s", err, *why)
		}
		for _, cmd := range cmds {
			cmd.SetErr(err)
		}
	}
	return err
}

func (b breaker) isOpen() bool { return b.State() != gobreaker.StateClosed }

// breakOn puts a breaker in front of each server, but those of a Cluster.
func (s *Store) breakOn() {
	if c, ok := s.client.(*redis.Client); ok {
		s.breaks(s.server(c), c, func() {})
	}
	if s.replicas != nil {
		s.breaks(s.where+" replica", s.replicas, func() {})
	}
}

func (s *Store) breaks(server string, c *redis.Client, onTry func()) {
	b := newBreaker(server, s.timeout, s.onAway, onTry)
	b.explain = s.explain
	s.breakers.Store(b.Name(), b)
	c.AddHook(b)
}
