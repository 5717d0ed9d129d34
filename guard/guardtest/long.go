package guardtest

import (
	"context"
	"fmt"
	"time"

	"pgregory.net/rapid"

	"github.com/streamguard/streamguard/guard"
)

// atPath is a request without a name for a path. Both its guards are given: that of
// its client, and that of the path if its answers are long ones.
func atPath(client, path int) guard.Claim {
	c := nameless(claim(client))
	c.Client, c.Path = 7, id(path)
	return c
}

// answeredLong says of such a request that its answer is a long one.
func answeredLong(c guard.Claim) guard.Claim {
	c.ID, c.For, c.Path = c.Path, c.ID, guard.ID{}
	c.Nameless, c.Named, c.Long = false, true, true
	return c
}

// The path of a long answer is a playback of its own, whatever else its client asks for.
func (s *suite) longAnswerIsItsPathsAlone() {
	one := policy
	one.Limit = 1
	news, other := atPath(9, 1), atPath(9, 2)
	made := s.acquire(guard.Admitted, news, one).Guard
	s.serves(9, other, one)
	s.Advance(time.Second)
	v := s.acquire(guard.Refreshed, answeredLong(news), one)
	if v.Guard.ID != id(1) || v.Guard.CreatedAt != made.CreatedAt || v.Held != 1 {
		s.Errorf("%+v, made was %+v", v, made)
	}
	s.holds(1)
	s.serves(1, news, one)
	other.Patience = 10 * time.Second // it is not doubted: it is being sent
	s.acquire(guard.Rejected, other, one)
	s.acquire(guard.Rejected, answeredLong(other), one)
	s.acquire(guard.Refreshed, answeredLong(news), one)

	two := policy
	two.Limit = 2
	s.acquire(guard.Admitted, other, two)
	s.acquire(guard.Refreshed, answeredLong(other), two)
	s.holds(1, 2)
	s.acquire(guard.Refreshed, named(claim(1)), two)
	s.revoke(true, 1)
	s.acquire(guard.Revoked, news, two)
	s.serves(2, other, two)
	s.acquire(guard.Admitted, atPath(9, 3), two)
}

// A guard has its path's name also where the answer may not go on, on another stream.
func (s *suite) longAnswerThatIsRefusedHasItsName() {
	none := policy
	none.Rules = []guard.Rule{{Per: "stream"}}
	news := atPath(9, 1)
	s.acquire(guard.Admitted, news, policy)
	elsewhere := answeredLong(news)
	elsewhere.Stream = "elsewhere"
	s.acquire(guard.Rejected, elsewhere, none)
	s.holds(1)
}

// What seemed to be long was a segment: its guard serves those after it.
func (s *suite) shortAnswerIsItsClientsAgain() {
	one := policy
	one.Limit = 1
	first, next := atPath(9, 1), atPath(9, 2)
	s.acquire(guard.Admitted, first, one)
	s.acquire(guard.Refreshed, answeredLong(first), one)
	s.acquire(guard.Rejected, next, one)
	short := with(answeredLong(first), guard.Look)
	short.Named, short.Long, short.Short = false, false, true
	s.acquire(guard.Refreshed, short, one)
	s.serves(1, next, one)
	s.Advance(80 * time.Second)
	s.serves(1, next, one)
	s.Advance(80 * time.Second)
	s.holds(1)
	short.ID = id(5)
	s.acquire(guard.Rejected, short, one)
}

// Only a guard that was made for a request without a name takes another.
func (s *suite) longAnswerTakesNoNamedGuard() {
	two := policy
	two.Limit = 2
	s.acquire(guard.Admitted, named(claim(9)), two)
	s.acquire(guard.Admitted, answeredLong(atPath(9, 1)), two)
	s.holds(9, 1)
	s.release(true, 9)
	s.release(true, 1)
	s.Advance(policy.TTL)
	s.acquire(guard.Admitted, atPath(9, 1), two)
	s.acquire(guard.Refreshed, answeredLong(atPath(9, 1)), two)
	s.release(true, 1)
	s.Advance(guard.Settle)
	// The path is known still; nobody else is it.
	s.acquire(guard.Admitted, atPath(9, 1), two)
	s.holds(1)
	s.acquire(guard.Admitted, atPath(9, 2), two)
}

// long is any sequence of calls about long answers: the store says what the rules do.
func (m *model) long(t *rapid.T) {
	m.rounds++
	user := fmt.Sprintf("carol %d", m.rounds)
	ledger := &guard.Ledger{Node: m.node}
	ctx := context.Background()
	for range rapid.IntRange(1, 40).Draw(t, "calls") {
		p := drawPolicy(t)
		switch rapid.IntRange(0, 9).Draw(t, "call") {
		case 0:
			d := time.Duration(rapid.IntRange(0, 60_000).Draw(t, "ms")) * time.Millisecond
			m.Advance(d)
			m.elapsed += d
		case 1:
			it := drawID(t)
			got, err := m.Store.Release(ctx, user, it, p)
			m.same(t, got, ledger.Release(m.now(), it, p), err)
		case 2:
			it := drawID(t)
			got, err := m.Store.Revoke(ctx, user, it, p)
			m.same(t, got, ledger.Revoke(m.now(), it, p), err)
		case 3:
			it := drawID(t)
			got, err := m.Store.CloseGuard(ctx, user, it)
			m.same(t, got, ledger.CloseGuard(m.now(), it), err)
		default:
			c := drawClaim(t, user)
			switch rapid.IntRange(0, 2).Draw(t, "length") {
			case 0:
				c.Nameless, c.Named, c.Long, c.For = false, c.Intent == guard.Play, true, drawID(t)
			case 1:
				c.Short, c.Nameless, c.Named = rapid.Bool().Draw(t, "short"), false, false
			}
			if c.Nameless {
				c.Path = drawID(t)
			}
			got, err := m.Store.Acquire(ctx, c, p)
			m.same(t, got, ledger.Acquire(m.now(), c, p), err)
		}
		guards, err := m.Store.List(ctx, user)
		want := ledger.List(m.now())
		if len(guards) == 0 && len(want) == 0 {
			continue
		}
		m.same(t, guards, want, err)
	}
}
