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
	model.ask(1)
	round := 0
	check := func(t *rapid.T) {
		round++
		model.ledgers = make(map[string]*guard.Ledger)
		model.users = []string{fmt.Sprintf("alice %d", round), fmt.Sprintf("bob %d", round)}
		model.ended, model.forgetful = make(map[playback]ending), make(map[string]bool)
		model.alive, model.nameless = make(map[playback]time.Time), make(map[playback]bool)
		model.closed, model.taken = make(map[playback]bool), make(map[playback]bool)
		model.turnedAway = make(map[string]int)
		t.Repeat(map[string]func(*rapid.T){
			"acquire": model.acquire,
			"start":   model.acquire, // twice as often as the rest
			"refresh": model.refresh,
			"release": func(t *rapid.T) { model.end(t, false, drawID(t), drawPolicy(t)) },
			"revoke":  func(t *rapid.T) { model.end(t, true, drawID(t), drawPolicy(t)) },
			"close":   model.close,
			"leave":   model.close, // as often as somebody starts
			"node":    model.moveOn,
			"undo":    model.undo,
			"ghosts":  model.ghosts,
			"fail":    model.fail,
			"again":   model.again,
			"rivals":  model.rivals,
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
	rapid.Check(t, model.long)
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
	node    uint8 // which asks
	users   []string
	ledgers map[string]*guard.Ledger
	// since the clock was set last
	ended map[playback]ending
	alive map[playback]time.Time // when a request under its own id was admitted last

	nameless   map[playback]bool // made for a request without a name
	closed     map[playback]bool // since it was made
	taken      map[playback]bool // its slot, where nobody is replaced
	forgetful  map[string]bool   // of users
	turnedAway map[string]int    // users, how often, because they had been replaced

	operations int
	rounds     int // of long answers
}

type playback struct {
	user string
	id   guard.ID
}

// ending is what the end of a guard promises.
type ending struct {
	until      time.Time // it is not undone: nodes may remember the guard as long
	stragglers time.Time // pass before that
	replaced   bool
	back       bool // but it has started again
}

// user draws a user, with what is to be expected of the store.
func (m *model) user(t *rapid.T) (string, *guard.Ledger) {
	user := rapid.SampledFrom(m.users).Draw(t, "user")
	l := m.ledgers[user]
	if l == nil {
		l = new(guard.Ledger)
		m.ledgers[user] = l
	}
	l.Node = m.node
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
		Limit:    drawLimit(t, 4),
		AtLimit:  drawAtLimit(t),
		Interval: time.Duration(rapid.IntRange(20, 60).Draw(t, "interval")) * time.Second,
		Reclaim:  guard.Reclaim(rapid.IntRange(0, 2).Draw(t, "reclaim")),
		Observe:  rapid.IntRange(0, 9).Draw(t, "observe") == 0,
	}
	p.TTL = p.Interval + rapid.SampledFrom([]time.Duration{30 * time.Second, 30 * time.Second, 10 * time.Minute}).Draw(t, "ttl")
	for _, per := range []string{"device", "stream", "client", "class"} {
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

func drawClaim(t *rapid.T, user string) guard.Claim {
	c := guard.Claim{
		User:     user,
		ID:       drawID(t),
		Stream:   name(t, "stream", "a", "b"),
		Device:   name(t, "device", "tv", "phone"),
		Client:   rapid.SampledFrom([]guard.Client{0, 7, 7, 8}).Draw(t, "client"),
		Labels:   guard.Labels("").With("class", name(t, "class", "big", "small")).With("tier", name(t, "tier", "gold", "silver")),
		Intent:   guard.Intent(rapid.IntRange(int(guard.Play), int(guard.Resume)).Draw(t, "intent")),
		Anew:     rapid.IntRange(0, 2).Draw(t, "anew") == 0,
		Reloads:  rapid.IntRange(0, 2).Draw(t, "reloads") == 0,
		Keeps:    rapid.IntRange(0, 4).Draw(t, "keeps") == 0,
		Patience: time.Duration(rapid.SampledFrom([]int{0, 10, 10, 20}).Draw(t, "patience")) * time.Second,
		Waited:   rapid.Bool().Draw(t, "waited"),
		Alone:    time.Duration(rapid.SampledFrom([]int{0, 1, 10_000, 50_000}).Draw(t, "alone")) * time.Millisecond,
	}
	switch rapid.IntRange(0, 3).Draw(t, "name") {
	case 0:
		c.Named = true
	case 1:
		c.Nameless = true
		if by := drawID(t); by != c.ID && rapid.Bool().Draw(t, "was served before") { // by another's guard
			c.For = by
		}
	}
	return c
}

func (m *model) acquire(t *rapid.T) {
	user, ledger := m.user(t)
	m.claim(t, ledger, drawClaim(t, user), drawPolicy(t))
}

// claim is one claim, of the store and by the rules.
func (m *model) claim(t *rapid.T, ledger *guard.Ledger, c guard.Claim, p guard.Policy) guard.Verdict {
	before := ledger.List(m.now())
	got, err := m.Store.Acquire(context.Background(), c, p)
	m.same(t, got, ledger.Acquire(m.now(), c, p), err)
	if broken := m.broken(c, p, got, before, ledger.List(m.now())); broken != "" {
		t.Fatalf("%s: %+v by %+v became %+v; before it were %+v", broken, c, p, got, before)
	}
	for _, g := range before {
		if at := slices.Index(got.Replaced, g.ID); at >= 0 {
			m.ends(ledger, g, p, true)
			m.taken[playback{c.User, g.ID}] = at < got.Taken && p.AtLimit == guard.Reject && len(p.Rules) == 0
		}
	}
	it := playback{c.User, got.Guard.ID}
	switch got.Outcome {
	case guard.Replaced:
		m.turnedAway[c.User]++
	case guard.Admitted:
		m.closed[it], m.taken[it] = false, false
		m.nameless[it] = c.Nameless && it.id == c.ID && it.id != c.For
		if e, ended := m.ended[it]; ended {
			e.back = true
			m.ended[it] = e
		}
		m.alive[it] = m.now()
	case guard.Refreshed:
		if !c.Nameless {
			m.alive[it] = m.now()
		}
	}
	return got
}

// broken is the promise that a verdict breaks.
func (m *model) broken(c guard.Claim, p guard.Policy, v guard.Verdict, before, after []guard.Guard) string {
	it := playback{c.User, v.Guard.ID}
	most := min(p.Limit, guard.MaxLimit)
	if p.Observe {
		most = guard.MaxObserved
	}
	admitted, resumed := v.Outcome == guard.Admitted, c.Intent == guard.Resume || c.Nameless && it.id == c.For
	last, ended := m.ended[playback{c.User, c.ID}]
	switch {
	case len(v.InTheWay) != min(v.Blocking, guard.MaxInTheWay):
		return "a refusal shows the oldest sixteen"
	case admitted && !resumed && v.Held > most:
		return "a start keeps to the limit"
	case admitted && v.Held > most && c.Alone == 0 && m.now().Before(m.ended[it].until) && !m.ended[it].back:
		return "an end is not undone past the limit"
	case (v.Outcome == guard.Rejected || v.Outcome == guard.Replaced) && p.Observe:
		return "observing refuses nobody"
	case v.Outcome == guard.Released && c.Intent == guard.Play && !c.Nameless && ended && !m.now().Before(last.stragglers):
		return "stragglers pass no longer than their playback lived, and once"
	case v.Outcome == guard.Released && c.Intent == guard.Look:
		return "a look is no straggler"
	case c.Anew && !c.Reloads && (v.Outcome == guard.Replaced || v.Outcome == guard.Released && c.Intent != guard.Resume):
		return "who starts anew is neither replaced nor a straggler"
	case v.Lately && v.Outcome != guard.Rejected:
		return "nobody is lately but who is refused"
	case v.Lately && m.turnedAway[c.User] <= guard.MaxReturns:
		return "a fight has somebody who was thrown out three times"
	case c.Intent == guard.Look && !slices.Equal(idsOf(before), idsOf(after)) && !(admitted && resumed):
		return "a look makes nothing, and takes nothing"
	case admitted && c.Nameless && it.id == c.ID && it.id != c.For && slices.ContainsFunc(before, func(g guard.Guard) bool { return m.mayServe(c, g) }):
		return "a request without a name makes no second guard"
	case c.Anew && !c.Reloads && c.Intent == guard.Play && p.AtLimit == guard.ReplaceOldest && most > 0 && len(p.Rules) == 0 &&
		!v.Outcome.Pass() && v.Outcome != guard.Revoked && !v.Lately:
		return "who starts anew where others give way is refused by an operator or for a fight"
	case v.Outcome == guard.Doubted && (v.FreeIn <= 0 || v.FreeIn > c.Patience || c.Waited && len(v.Doubted) > 0):
		return "a start waits for its patience at most, and once"
	case v.Outcome != guard.Doubted && len(v.Doubted) > 0:
		return "nobody is doubted for nothing"
	}
	switch taken := v.Replaced[:v.Taken]; {
	case len(p.Rules) == 0 && !slices.Equal(taken, m.takeable(p, it.id, before)[:v.Taken]):
		return "closed guards are taken before lapsed ones, and what is over longest first"
	case v.Outcome == guard.Replaced && m.taken[playback{c.User, c.ID}] && !c.Nameless && len(p.Rules) == 0 && len(before)-len(m.takeable(p, c.ID, before)) < most:
		return "whose slot was taken may come back where there is room"
	}
	if !slices.ContainsFunc(p.AllRules(), func(r guard.Rule) bool { return r.AtLimit != guard.Reject }) {
		for _, g := range before {
			if at := slices.Index(v.Replaced, g.ID); at < 0 {
				continue
			} else if at < v.Taken {
				if !p.MayTake(m.now(), &g) {
					return "nobody's slot is taken but those the policy says"
				}
				continue
			}
			if c.Patience == 0 || m.now().Sub(m.alive[playback{c.User, g.ID}]) < c.Patience {
				return "who shows life while doubted is not taken"
			}
			if g.Client != v.Guard.Client || g.Client == 0 || g.Stream != v.Guard.Stream {
				return "nobody takes another client's slot, or another stream's"
			}
		}
	}
	return ""
}

// takeable are the guards whose slots a start may take, in that order.
func (m *model) takeable(p guard.Policy, id guard.ID, guards []guard.Guard) (ids []guard.ID) {
	for _, state := range []guard.State{guard.Closed, guard.Lapsed} {
		these := slices.DeleteFunc(slices.Clone(guards), func(g guard.Guard) bool {
			return g.ID == id || g.State(m.now()) != state || !p.MayTake(m.now(), &g)
		})
		slices.SortStableFunc(these, func(a, b guard.Guard) int { return a.ExpiresAt.Compare(b.ExpiresAt) })
		ids = append(ids, idsOf(these)...)
	}
	return ids
}

// mayServe reports whether a guard may be what a request without a name is part of.
func (m *model) mayServe(c guard.Claim, g guard.Guard) bool {
	foreign := m.nameless[playback{c.User, g.ID}] && g.Client != c.Client && g.Client != 0 && c.Client != 0
	return !foreign && (g.Stream == c.Stream || g.Stream == "" || c.Stream == "") && (g.Device == c.Device || g.Device == "" || c.Device == "")
}

// ends notes that a guard was ended by a policy.
func (m *model) ends(l *guard.Ledger, g guard.Guard, p guard.Policy, replaced bool) {
	it, now := playback{g.User, g.ID}, m.now()
	e := ending{until: now.Add(p.TTL), stragglers: now.Add(min(guard.Settle, now.Sub(g.CreatedAt))), replaced: replaced}
	if g.RemovedAt.After(e.until) {
		e.until = g.RemovedAt
	}
	// With so many marks it may be forgotten that the playback had come back.
	m.forgetful[g.User] = m.forgetful[g.User] || l.Len()-len(l.List(now)) >= guard.MaxMarks
	if last := m.ended[it]; replaced || now.Before(last.until) && !last.replaced && !m.forgetful[g.User] {
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
			m.ends(ledger, g, p, false)
		}
	}
}

func (m *model) refresh(t *rapid.T) {
	user, ledger := m.user(t)
	m.refreshOf(t, user, ledger, drawID(t), drawPolicy(t))
}

func (m *model) refreshOf(t *rapid.T, user string, ledger *guard.Ledger, id guard.ID, p guard.Policy) {
	got, err := m.Store.Refresh(context.Background(), user, id, p)
	m.same(t, got, ledger.Refresh(m.now(), id, p), err)
	switch got.Outcome {
	case guard.Refreshed:
		m.alive[playback{user, id}] = m.now()
	case guard.Replaced:
		m.turnedAway[user]++
	}
}

// close has the client of a playback close its connections.
func (m *model) close(t *rapid.T) {
	user, ledger := m.user(t)
	m.closeOf(t, user, ledger, drawID(t))
}

func (m *model) closeOf(t *rapid.T, user string, ledger *guard.Ledger, id guard.ID) {
	got, err := m.Store.CloseGuard(context.Background(), user, id)
	m.same(t, got, ledger.CloseGuard(m.now(), id), err)
	it := playback{user, id}
	if got && m.closed[it] {
		t.Fatalf("a guard that has come back from its closing is closed again: %v of %s", id, user)
	}
	m.closed[it] = m.closed[it] || got
}

// moveOn has another node ask from now on.
func (m *model) moveOn(t *rapid.T) {
	m.ask(rapid.Uint8Range(1, 3).Draw(t, "node"))
}

// ask has a node ask from now on, where nodes are told apart.
func (m *model) ask(node uint8) {
	if m.As != nil {
		m.As(node)
		m.node = node
	}
}

// ghosts are films that are started, left and gone back to in turn, beyond the limit.
func (m *model) ghosts(t *rapid.T) {
	user, ledger := m.user(t)
	p := drawPolicy(t)
	p.Observe, p.Limit, p.AtLimit, p.Rules = false, rapid.IntRange(1, 2).Draw(t, "low limit"), guard.Reject, nil
	for range rapid.IntRange(3, 20).Draw(t, "turns") {
		c := guard.Claim{User: user, ID: id(rapid.IntRange(1, 7).Draw(t, "film")), Client: 7, Named: true}
		c.Intent = rapid.SampledFrom([]guard.Intent{guard.Play, guard.Play, guard.Resume, guard.Look}).Draw(t, "intent")
		c.Anew = rapid.Bool().Draw(t, "anew")
		m.claim(t, ledger, c, p)
		m.advance(rapid.SampledFrom([]time.Duration{0, 1, 5, 30}).Draw(t, "seconds") * time.Second)
		if rapid.IntRange(0, 2).Draw(t, "leaves") > 0 {
			m.refreshOf(t, user, ledger, c.ID, p)
			m.closeOf(t, user, ledger, c.ID)
		}
	}
}

// undo takes back what was made by whatever came before, if anything may be.
func (m *model) undo(t *rapid.T) {
	user, ledger := m.user(t)
	id := drawID(t)
	m.undoOf(t, user, ledger, id, rapid.SliceOfN(rapid.Custom(drawID), 0, 3).Draw(t, "others"))
}

func (m *model) undoOf(t *rapid.T, user string, ledger *guard.Ledger, id guard.ID, replaced []guard.ID) bool {
	got, err := m.Store.Undo(context.Background(), user, id, replaced)
	m.same(t, got, ledger.Undo(m.now(), id, replaced), err)
	if e, ended := m.ended[playback{user, id}]; got && ended {
		e.back = false
		m.ended[playback{user, id}] = e
	}
	return got
}

// fail is a start that delivers nothing: of the guards of before, those that it has
// not replaced are as they were, and nothing more is there.
func (m *model) fail(t *rapid.T) {
	user, ledger := m.user(t)
	c, p := drawClaim(t, user), drawPolicy(t)
	c.Intent, c.For = guard.Play, guard.ID{}
	c.Named = !c.Nameless
	before := ledger.List(m.now())
	marks := ledger.Len() - len(before)
	v := m.claim(t, ledger, c, p)
	if v.Outcome != guard.Admitted {
		return
	}
	if !m.undoOf(t, user, ledger, c.ID, v.Replaced) {
		t.Fatalf("what was made last is not undone: %+v", c)
	}
	before = slices.DeleteFunc(before, func(g guard.Guard) bool { return slices.Contains(v.Replaced, g.ID) })
	after := ledger.List(m.now())
	if !slices.Equal(after, before) || ledger.Len()-len(after) > marks+len(v.Replaced) {
		t.Fatalf("before a start that failed\n%+v\nafter it\n%+v\nand %d records instead of %d", before, after, ledger.Len(), marks+len(before))
	}
}

// again has equal clients start one film, of whom some may have stopped.
func (m *model) again(t *rapid.T) {
	user, ledger := m.user(t)
	p := drawPolicy(t)
	p.Observe, p.Limit = false, rapid.IntRange(1, 3).Draw(t, "low limit")
	c := guard.Claim{User: user, Stream: "a", Client: 7, Patience: 10 * time.Second}
	for range rapid.IntRange(2, 5).Draw(t, "starts") {
		c.ID, c.Waited = drawID(t), false
		c.Intent = rapid.SampledFrom([]guard.Intent{guard.Play, guard.Look}).Draw(t, "intent")
		for m.claim(t, ledger, c, p).Outcome == guard.Doubted {
			if rapid.Bool().Draw(t, "somebody watches") {
				m.advance(time.Duration(rapid.IntRange(0, 9_999).Draw(t, "milliseconds")) * time.Millisecond)
				m.refreshOf(t, user, ledger, drawID(t), p)
			}
			m.advance(rapid.SampledFrom([]time.Duration{2, 10}).Draw(t, "seconds") * time.Second)
			c.Waited = rapid.IntRange(0, 9).Draw(t, "waited") > 0
		}
	}
}

// rivals start whenever they are thrown out.
func (m *model) rivals(t *rapid.T) {
	user, ledger := m.user(t)
	p := drawPolicy(t)
	p.Observe, p.Limit, p.AtLimit = false, 1, guard.ReplaceOldest
	for n := range rapid.IntRange(3, 9).Draw(t, "turns") {
		c := guard.Claim{User: user, ID: id(n%2 + 1), Stream: []string{"a", "b"}[n%2], Anew: true, Named: true}
		v := m.claim(t, ledger, c, p)
		m.advance(rapid.SampledFrom([]time.Duration{1000, 1001, 3000}).Draw(t, "milliseconds") * time.Millisecond)
		for _, other := range v.Replaced {
			m.refreshOf(t, user, ledger, other, p)
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
	clear(m.alive)
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
