package guardtest

import (
	"context"
	"fmt"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/streamguard/streamguard/guard"
)

// Model holds a store to guard.Ledger: after any sequence of calls both have
// said the same, to the millisecond. The store's clock stands still but for
// Advance, which has to move it back too.
func Model(t *testing.T, h Harness) {
	model := &model{Harness: h, start: clock(t, h.Store)}
	round := 0
	check := func(t *rapid.T) {
		round++
		model.ledgers = make(map[string]*guard.Ledger)
		model.users = []string{fmt.Sprintf("alice %d", round), fmt.Sprintf("bob %d", round)}
		t.Repeat(map[string]func(*rapid.T){
			"acquire": model.acquire,
			"start":   model.acquire, // twice as often as the rest
			"refresh": byID(model, guard.Store.Refresh, (*guard.Ledger).Refresh),
			"release": byID(model, guard.Store.Release, (*guard.Ledger).Release),
			"revoke":  byID(model, guard.Store.Revoke, (*guard.Ledger).Revoke),
			"list":    model.list,
			"wait":    model.wait,
			"jump":    model.jump,
		})
	}
	for range 10 {
		rapid.Check(t, check)
	}
	t.Logf("%d operations", model.operations)
}

// clock is what the store's clock says.
func clock(t *testing.T, s guard.Store) time.Time {
	t.Helper()
	v, err := s.Acquire(context.Background(), guard.Claim{User: "clock"}, policy)
	if err != nil {
		t.Fatal(err)
	}
	return v.Guard.CreatedAt
}

type model struct {
	Harness
	start   time.Time
	elapsed time.Duration
	users   []string
	ledgers map[string]*guard.Ledger

	operations int
}

// user draws a user, with what is to be expected of the store.
func (m *model) user(t *rapid.T) (string, *guard.Ledger) {
	user := rapid.SampledFrom(m.users).Draw(t, "user")
	l := m.ledgers[user]
	if l == nil {
		l = new(guard.Ledger)
		m.ledgers[user] = l
	}
	return user, l
}

func (m *model) now() time.Time { return m.start.Add(m.elapsed) }

func drawID(t *rapid.T) guard.ID { return id(rapid.IntRange(1, 6).Draw(t, "id")) }

func name(t *rapid.T, what string, names ...string) string {
	return rapid.SampledFrom(append(names, "")).Draw(t, what)
}

func drawPolicy(t *rapid.T) guard.Policy {
	p := guard.Policy{
		Limit:         rapid.IntRange(0, 4).Draw(t, "limit"),
		AtLimit:       drawAtLimit(t),
		Interval:      time.Duration(rapid.IntRange(20, 60).Draw(t, "interval")) * time.Second,
		ReclaimLapsed: rapid.Bool().Draw(t, "reclaim_lapsed"),
	}
	p.TTL = p.Interval + 30*time.Second
	for _, per := range []string{"device", "stream", "class"} {
		if rapid.IntRange(0, 3).Draw(t, "has rule per "+per) == 0 {
			p.Rules = append(p.Rules, guard.Rule{Per: per, Limit: rapid.IntRange(0, 2).Draw(t, per), AtLimit: drawAtLimit(t)})
		}
	}
	return p
}

func drawAtLimit(t *rapid.T) guard.AtLimit {
	return rapid.SampledFrom([]guard.AtLimit{guard.Reject, guard.Reject, guard.ReplaceDevice, guard.ReplaceOldest}).Draw(t, "at limit")
}

func (m *model) acquire(t *rapid.T) {
	user, ledger := m.user(t)
	c := guard.Claim{
		User:   user,
		ID:     drawID(t),
		Stream: name(t, "stream", "a", "b"),
		Device: name(t, "device", "tv", "phone"),
		Labels: guard.Labels("").With("class", name(t, "class", "big", "small")).With("tier", name(t, "tier", "gold", "silver")),
		Intent: guard.Intent(rapid.IntRange(int(guard.Start), int(guard.Resume)).Draw(t, "intent")),
		Alone:  time.Duration(rapid.SampledFrom([]int{0, 1, 10_000, 50_000}).Draw(t, "alone")) * time.Millisecond,
	}
	p := drawPolicy(t)
	got, err := m.Store.Acquire(context.Background(), c, p)
	m.same(t, got, ledger.Acquire(m.now(), c, p), err)
}

// byID is a call about one guard, as the store and as the rules have it.
func byID[V any](
	m *model,
	call func(guard.Store, context.Context, string, guard.ID, guard.Policy) (V, error),
	rule func(*guard.Ledger, time.Time, guard.ID, guard.Policy) V,
) func(*rapid.T) {
	return func(t *rapid.T) {
		user, ledger := m.user(t)
		id, p := drawID(t), drawPolicy(t)
		got, err := call(m.Store, context.Background(), user, id, p)
		m.same(t, got, rule(ledger, m.now(), id, p), err)
	}
}

func (m *model) list(t *rapid.T) {
	user, ledger := m.user(t)
	got, err := m.Store.List(context.Background(), user)
	want := ledger.List(m.now())
	if len(got)+len(want) > 0 {
		m.same(t, got, want, err)
	}
}

func (m *model) wait(t *rapid.T) {
	d := time.Duration(rapid.IntRange(1, 50_000).Draw(t, "milliseconds")) * time.Millisecond
	m.advance(d)
}

// jump sets the clock. A store may keep what is over until it is asked again,
// so that it is asked before that could come back.
func (m *model) jump(t *rapid.T) {
	d := rapid.SampledFrom([]time.Duration{-time.Hour, -time.Minute, -time.Second, time.Hour}).Draw(t, "jump")
	for user, ledger := range m.ledgers {
		got, err := m.Store.Refresh(context.Background(), user, id(0), policy)
		m.same(t, got, ledger.Refresh(m.now(), id(0), policy), err)
	}
	m.advance(d)
}

func (m *model) advance(d time.Duration) {
	m.Advance(d)
	m.elapsed += d
}

func (m *model) same(t *rapid.T, got, want any, err error) {
	t.Helper()
	m.operations++
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("the store says\n%+v\nthe rules\n%+v", got, want)
	}
}
