package guardtest

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/streamguard/streamguard/guard"
)

// Model holds a store to guard.Ledger: after any sequence of calls both have
// said the same, to the millisecond; and both to what is promised of every answer.
// The store's clock stands still but for Advance, which has to move it back too.
func Model(t *testing.T, h Harness) {
	model := &model{Harness: h, start: clock(t, h.Store)}
	round := 0
	check := func(t *rapid.T) {
		round++
		model.ledgers = make(map[string]*guard.Ledger)
		model.users = []string{fmt.Sprintf("alice %d", round), fmt.Sprintf("bob %d", round)}
		model.ended, model.forgetful = make(map[playback]ending), make(map[string]bool)
		t.Repeat(map[string]func(*rapid.T){
			"acquire": model.acquire,
			"start":   model.acquire, // twice as often as the rest
			"refresh": byID(model, guard.Store.Refresh, (*guard.Ledger).Refresh),
			"release": func(t *rapid.T) { model.end(t, false, drawID(t), drawPolicy(t)) },
			"revoke":  func(t *rapid.T) { model.end(t, true, drawID(t), drawPolicy(t)) },
			"list":    model.list,
			"crowd":   model.crowd,
			"zap":     model.zap,
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
	ended   map[playback]ending // since the clock was set last

	forgetful map[string]bool // of users

	operations int
}

type playback struct {
	user string
	id   guard.ID
}

// ending is what the end of a guard promises.
type ending struct {
	until      time.Time // it is not undone: nodes may remember the guard as long
	stragglers time.Time // pass before that
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

// drawID draws a few ids often, so that much becomes of them, and many at times.
func drawID(t *rapid.T) guard.ID {
	return id(rapid.OneOf(rapid.IntRange(1, 6), rapid.IntRange(1, 6), rapid.IntRange(1, 40)).Draw(t, "id"))
}

func name(t *rapid.T, what string, names ...string) string {
	return rapid.SampledFrom(append(names, "")).Draw(t, what)
}

func drawPolicy(t *rapid.T) guard.Policy {
	p := guard.Policy{
		Limit:         drawLimit(t, 4),
		AtLimit:       drawAtLimit(t),
		Interval:      time.Duration(rapid.IntRange(20, 60).Draw(t, "interval")) * time.Second,
		ReclaimLapsed: rapid.Bool().Draw(t, "reclaim_lapsed"),
		Observe:       rapid.IntRange(0, 9).Draw(t, "observe") == 0,
	}
	p.TTL = p.Interval + rapid.SampledFrom([]time.Duration{30 * time.Second, 30 * time.Second, 10 * time.Minute}).Draw(t, "ttl")
	for _, per := range []string{"device", "stream", "class"} {
		if rapid.IntRange(0, 3).Draw(t, "has rule per "+per) == 0 {
			p.Rules = append(p.Rules, guard.Rule{Per: per, Limit: drawLimit(t, 2), AtLimit: drawAtLimit(t)})
		}
	}
	return p
}

func drawLimit(t *rapid.T, most int) int {
	if rapid.IntRange(0, 9).Draw(t, "high limit") == 0 {
		return rapid.SampledFrom([]int{17, guard.MaxLimit + 1, guard.Unlimited}).Draw(t, "limit")
	}
	return rapid.IntRange(0, most).Draw(t, "limit")
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
		Intent: guard.Intent(rapid.IntRange(int(guard.Play), int(guard.Resume)).Draw(t, "intent")),
		Alone:  time.Duration(rapid.SampledFrom([]int{0, 1, 10_000, 50_000}).Draw(t, "alone")) * time.Millisecond,
	}
	m.claim(t, ledger, c, drawPolicy(t))
}

// claim is one claim, of the store and by the rules.
func (m *model) claim(t *rapid.T, ledger *guard.Ledger, c guard.Claim, p guard.Policy) {
	before := ledger.List(m.now())
	got, err := m.Store.Acquire(context.Background(), c, p)
	m.same(t, got, ledger.Acquire(m.now(), c, p), err)
	if broken := m.broken(c, p, got); broken != "" {
		t.Fatalf("%s: %+v by %+v became %+v", broken, c, p, got)
	}
	for _, g := range before {
		if slices.Contains(got.Replaced, g.ID) {
			m.ends(ledger, g, p)
		}
	}
}

// broken is the promise that a verdict breaks.
func (m *model) broken(c guard.Claim, p guard.Policy, v guard.Verdict) string {
	most := min(p.Limit, guard.MaxLimit)
	last, ended := m.ended[playback{c.User, c.ID}]
	if p.Observe {
		most = guard.MaxObserved
	}
	switch {
	case len(v.InTheWay) != min(v.Blocking, guard.MaxInTheWay):
		return "a refusal shows the oldest sixteen"
	case v.Outcome == guard.Admitted && c.Intent != guard.Resume && v.Held > most:
		return "a start keeps to the limit"
	case v.Outcome == guard.Rejected && p.Observe:
		return "observing refuses nobody"
	case v.Outcome == guard.Admitted && c.Intent == guard.Resume && c.Alone == 0 && v.Held > most && m.now().Before(last.until):
		return "an end is not undone past the limit"
	case v.Outcome == guard.Released && c.Intent == guard.Play && ended && !m.now().Before(last.stragglers):
		return "stragglers pass no longer than their playback lived, and once"
	}
	return ""
}

// ends notes that a guard was ended by a policy.
func (m *model) ends(l *guard.Ledger, g guard.Guard, p guard.Policy) {
	it, now := playback{g.User, g.ID}, m.now()
	e := ending{now.Add(p.TTL), now.Add(min(guard.Settle, now.Sub(g.CreatedAt)))}
	if g.RemovedAt.After(e.until) {
		e.until = g.RemovedAt
	}
	// With so many marks it may be forgotten that the playback had come back.
	m.forgetful[g.User] = m.forgetful[g.User] || l.Len()-len(l.List(now)) >= guard.MaxMarks
	if now.Before(m.ended[it].until) && !m.forgetful[g.User] {
		e.stragglers = now
	}
	m.ended[it] = e
}

// end releases or revokes a guard.
func (m *model) end(t *rapid.T, revoke bool, id guard.ID, p guard.Policy) {
	user, ledger := m.user(t)
	m.endOf(t, user, ledger, revoke, id, p)
}

func (m *model) endOf(t *rapid.T, user string, ledger *guard.Ledger, revoke bool, id guard.ID, p guard.Policy) {
	call, rule := guard.Store.Release, (*guard.Ledger).Release
	if revoke {
		call, rule = guard.Store.Revoke, (*guard.Ledger).Revoke
	}
	before := ledger.List(m.now())
	got, err := call(m.Store, context.Background(), user, id, p)
	m.same(t, got, rule(ledger, m.now(), id, p), err)
	for _, g := range before {
		if g.ID == id {
			m.ends(ledger, g, p)
		}
	}
}

// crowd has a user hold more guards than a refusal shows, or than are observed.
func (m *model) crowd(t *rapid.T) {
	if rapid.IntRange(0, 19).Draw(t, "crowd") > 0 {
		return
	}
	user, ledger := m.user(t)
	p := drawPolicy(t)
	p.Observe = true
	for n := range rapid.SampledFrom([]int{20, guard.MaxObserved + 1}).Draw(t, "guards") {
		m.claim(t, ledger, guard.Claim{User: user, ID: id(n), Stream: fmt.Sprint(n)}, p)
	}
}

// zap has a user end more playbacks than there are marks.
func (m *model) zap(t *rapid.T) {
	if rapid.IntRange(0, 9).Draw(t, "zap") > 0 {
		return
	}
	user, ledger := m.user(t)
	p, revoke := drawPolicy(t), rapid.Bool().Draw(t, "revoke")
	p.Observe = true
	for n := range guard.MaxMarks + 2 {
		m.claim(t, ledger, guard.Claim{User: user, ID: id(n), Stream: "a"}, p)
		m.endOf(t, user, ledger, revoke, id(n), p)
	}
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
	clear(m.ended)
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
