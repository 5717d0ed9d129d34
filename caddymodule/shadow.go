package caddymodule

import (
	"cmp"
	"context"
	"hash/maphash"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/streamguard/streamguard/api"
	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/lease"
	"github.com/streamguard/streamguard/problem"
)

// With mode observe everybody is admitted and gets a guard, so that the store
// knows how many playbacks a user has, and what the limit would have made of
// each is said of the request that starts it.

// observes reports whether the handler refuses nobody.
func (h *Handler) observes() bool { return h.tally != nil }

// raised is the policy that refuses nobody and replaces nothing.
func raised(p guard.Policy) guard.Policy {
	p.Observe, p.ReclaimLapsed = true, false
	return p
}

// started counts a playback that has just been admitted. It returns what the
// policy would have refused it with.
func (h *Handler) started(d *decision, r *http.Request, policy guard.Policy, v guard.Verdict) *problem.Problem {
	h.tally.start(d.claim.User, v.Held)
	would := h.wouldBe(r.Context(), d.claim, policy, v)
	switch {
	case !would.Outcome.Pass():
		return problem.Refused(would)
	case len(would.Replaced) > 0:
		d.verdict = wouldReplace
	}
	return nil
}

// wouldBe is the verdict that the policy would have come to about a playback
// that was admitted anyway.
func (h *Handler) wouldBe(ctx context.Context, c guard.Claim, policy guard.Policy, v guard.Verdict) guard.Verdict {
	if v.Held <= policy.Limit && len(policy.Rules) == 0 {
		return v
	}
	guards, err := h.keeper.List(ctx, c.User)
	if err != nil { // it counts here alone at the moment
		guards, _ = h.local.List(ctx, c.User)
	}
	if h.Playback == "path" && c.Intent == guard.Continue {
		c.Intent = guard.Start // its manifest would have made room
	}
	others := slices.DeleteFunc(guards, func(g guard.Guard) bool {
		return g.ID == v.Guard.ID || g.CreatedAt.After(v.Guard.CreatedAt)
	})
	return guard.NewLedger(others).Acquire(v.Guard.CreatedAt, c, policy)
}

// wouldRefuse says of a request that passes what it would have been refused
// with.
func (h *Handler) wouldRefuse(r *http.Request, d *decision, refusal *problem.Problem) {
	d.refusal, d.verdict = refusal, wouldReject
	h.logRefusal("would have been refused", r, d)
}

// shadow is the keeper for the API's calls with mode observe.
type shadow struct {
	*lease.Keeper
	tally *tally
}

// Acquire implements guard.Store. A playback that was revoked gets a guard under
// another id, the same each time.
func (s shadow) Acquire(ctx context.Context, c guard.Claim, p guard.Policy) (guard.Verdict, error) {
	v, err := s.Keeper.Acquire(ctx, c, raised(p))
	if err == nil && v.Outcome == guard.Revoked {
		c.ID = guard.DeriveID(c.User, c.Device, "revoked\x00"+c.ID.String())
		v, err = s.Keeper.Acquire(ctx, c, raised(p))
	}
	if v.Outcome == guard.Admitted {
		s.tally.start(c.User, v.Held)
	}
	return v, err
}

// Refresh implements guard.Store. A guard that was revoked is just not there.
func (s shadow) Refresh(ctx context.Context, user string, id guard.ID, p guard.Policy) (guard.Verdict, error) {
	v, err := s.Keeper.Refresh(ctx, user, id, p)
	return absentIfRevoked(v), err
}

// Keep is Refresh for what players report.
func (s shadow) Keep(ctx context.Context, c guard.Claim, p guard.Policy) (guard.Verdict, error) {
	v, err := s.Keeper.Keep(ctx, c, raised(p))
	return absentIfRevoked(v), err
}

func absentIfRevoked(v guard.Verdict) guard.Verdict {
	if v.Outcome == guard.Revoked {
		v.Outcome = guard.Absent
	}
	return v
}

const (
	maxReported = 10      // the highest limit that a report is about
	maxWatchers = 1 << 20 // users told apart who had several playbacks: some 20 MB
)

// tally counts the playbacks that started, by how many the user then had.
// A limit would have refused those that were one too many for it. That is more
// than it really would have: somebody who is refused holds no slot against the
// next.
type tally struct {
	since time.Time
	seed  maphash.Seed

	mu       sync.Mutex
	starts   [maxReported + 2]int64 // as the user's n-th; the last is of all beyond
	most     map[uint64]uint8       // by hash of the user: the highest n, if it is above 1
	overflow bool                   // there was no room in most
}

func newTally() *tally {
	return &tally{since: time.Now(), seed: maphash.MakeSeed(), most: make(map[uint64]uint8)}
}

// start counts the start of a user's n-th playback.
func (o *tally) start(user string, n int) {
	n = min(max(n, 1), maxReported+1)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.starts[n]++
	if n == 1 {
		return
	}
	who := maphash.String(o.seed, user)
	most, known := o.most[who]
	switch {
	case !known && len(o.most) >= maxWatchers:
		o.overflow = true
	case uint8(n) > most:
		o.most[who] = uint8(n)
	}
}

// Report is what handlers of a store with mode observe have seen on this Caddy.
type Report struct {
	Store     string        `json:"store"`
	Since     time.Time     `json:"since"`
	Playbacks int64         `json:"playbacks"` // that started
	Limits    []LimitReport `json:"limits"`

	// There were more users with several playbacks than can be told apart: the
	// numbers of users are too low.
	UsersAtLeast bool `json:"usersAtLeast,omitempty"`
}

// LimitReport is what a limit would have refused.
type LimitReport struct {
	Limit     int   `json:"limit"`
	Users     int64 `json:"users"`
	Playbacks int64 `json:"playbacks"`
}

func (o *tally) report(store string) Report {
	o.mu.Lock()
	defer o.mu.Unlock()
	r := Report{Store: store, Since: o.since, UsersAtLeast: o.overflow}
	var users [maxReported + 2]int64
	for _, most := range o.most {
		users[most]++
	}
	var refused LimitReport
	for n := maxReported + 1; n > 1; n-- {
		refused.Users += users[n]
		refused.Playbacks += o.starts[n]
		refused.Limit = n - 1
		r.Limits = append(r.Limits, refused)
	}
	r.Playbacks = refused.Playbacks + o.starts[1]
	slices.SortFunc(r.Limits, func(a, b LimitReport) int { return cmp.Compare(a.Limit, b.Limit) })
	return r
}

var (
	_ api.Store = (*lease.Keeper)(nil)
	_ api.Store = shadow{}
)
