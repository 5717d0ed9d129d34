package guardtest

import (
	"context"
	"testing"
	"time"

	"github.com/streamguard/streamguard/guard"
)

// rules is a Store of nothing but ledgers, whose clock goes where it is told to.
type rules struct {
	now     time.Time
	node    uint8 // which asks
	ledgers map[string]*guard.Ledger
}

func (r *rules) of(user string) *guard.Ledger {
	if r.ledgers[user] == nil {
		r.ledgers[user] = new(guard.Ledger)
	}
	r.ledgers[user].Node = r.node
	return r.ledgers[user]
}

func (r *rules) Acquire(_ context.Context, c guard.Claim, p guard.Policy) (guard.Verdict, error) {
	return r.of(c.User).Acquire(r.now, c, p), nil
}

func (r *rules) Refresh(_ context.Context, user string, id guard.ID, p guard.Policy) (guard.Verdict, error) {
	return r.of(user).Refresh(r.now, id, p), nil
}

func (r *rules) Release(_ context.Context, user string, id guard.ID, p guard.Policy) (bool, error) {
	return r.of(user).Release(r.now, id, p), nil
}

func (r *rules) Revoke(_ context.Context, user string, id guard.ID, p guard.Policy) (bool, error) {
	return r.of(user).Revoke(r.now, id, p), nil
}

func (r *rules) CloseGuard(_ context.Context, user string, id guard.ID) (bool, error) {
	return r.of(user).CloseGuard(r.now, id), nil
}

func (r *rules) Undo(_ context.Context, user string, id guard.ID, replaced []guard.ID) (bool, error) {
	return r.of(user).Undo(r.now, id, replaced), nil
}

func (r *rules) List(_ context.Context, user string) ([]guard.Guard, error) {
	return r.of(user).List(r.now), nil
}

func newRules() *rules {
	return &rules{now: time.UnixMilli(1_800_000_000_000).UTC(), ledgers: make(map[string]*guard.Ledger)}
}

func (r *rules) harness() Harness {
	return Harness{
		Store:   r,
		Advance: func(d time.Duration) { r.now = r.now.Add(d) },
		As:      func(node uint8) { r.node = node },
		Size:    func(user string) int { return r.of(user).Len() },
	}
}

// The rules keep what is promised of every answer, and other stores are held to.
func TestRulesKeepTheirPromises(t *testing.T) { Model(t, newRules().harness()) }

func TestRulesAreShared(t *testing.T) {
	RunShared(t, func(t *testing.T, test func(*testing.T, Harness)) { test(t, newRules().harness()) })
}
