package gate

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/streamguard/streamguard/audience"
	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/lease"
	"github.com/streamguard/streamguard/playback"
	"github.com/streamguard/streamguard/problem"
)

// With Observe everybody is admitted and gets a guard, so that the store knows
// how many playbacks a user has. What the limit would have made of each is said
// of the request that starts it.

// Observed is the policy that refuses nobody and replaces nothing.
func Observed(p guard.Policy) guard.Policy {
	p.Observe, p.Reclaim = true, guard.ReclaimOff
	return p
}

// observe counts a playback that has just been admitted, or is one too many to be
// counted. It returns what the policy would have refused it with.
func (g *Gate) observe(ctx context.Context, r *Request, d *Decision, claim guard.Claim, v guard.Verdict) *problem.Problem {
	would := starts(ctx, g.Audience, g.Keeper, g.Local, &audience.Start{
		At: g.manifests.now(), Claim: claim, Policy: r.Policy, Attempt: r.Refused, Beyond: v.Outcome == guard.Uncounted, Example: g.example(r),
	}, &v)
	switch {
	case !would.Outcome.Pass():
		d.SelfRefused = audience.SelfRefused(g.manifests.now(), &claim, &would)
		return problem.Refused(would)
	case len(would.Replaced) > would.Taken:
		d.Word = WouldReplace
	}
	return nil
}

// starts counts a start, and says what the policy would have made of it.
func starts(ctx context.Context, seen *audience.Audience, k *lease.Keeper, local guard.Store, s *audience.Start, v *guard.Verdict) guard.Verdict {
	if v.Held > 1 || v.Outcome != guard.Admitted {
		guards, err := k.List(ctx, s.Claim.User)
		if err != nil { // it counts here alone at the moment
			guards, _ = local.List(ctx, s.Claim.User)
		}
		s.Beside = guards
		if v.Outcome == guard.Admitted {
			s.At = v.Guard.CreatedAt
			s.Beside = slices.DeleteFunc(guards, func(o guard.Guard) bool { return o.ID == v.Guard.ID || o.CreatedAt.After(s.At) })
		}
	}
	for _, o := range s.Beside { // the store's clock counts
		if o.CreatedAt.After(s.At) {
			s.At = o.CreatedAt
		}
	}
	return seen.Start(s)
}

// Lives is a sign of life of an answer that is still being sent, as a log tells.
func (p *Passage) Lives(ctx context.Context) {
	policy := p.judgedBy()
	_, trial, known := p.gate.Keeper.Known(&p.claim, &policy)
	if !known {
		_, trial, _ = p.gate.Keeper.Ask(ctx, p.claim, policy)
	}
	trial.End(true)
	p.gate.goesOn(p.request, p.ID)
}

// goesOn tells of an answer that is still being sent to a playback.
func (g *Gate) goesOn(r *Request, id guard.ID) {
	g.Audience.Request(&audience.Request{At: g.manifests.now(), User: r.User, ID: g.Keeper.Serving(id), TTL: r.Policy.TTL, Goes: true})
}

// seen tells of a request that is part of a playback.
func (p *Passage) seen() {
	r, g := p.request, p.gate
	switch p.Word {
	case Known, Admitted, Refreshed, WouldReject, WouldReplace:
	default:
		return
	}
	seen := audience.Request{At: g.manifests.now(), User: r.User, ID: p.Guard(), Stream: r.Stream, TTL: r.Policy.TTL}
	if p.claim.Keeps {
		seen.Stream = "" // its manifest says which
	}
	if r.Token != nil {
		var buf [64]byte
		if seen.Name = playback.CMCDSessionID(buf[:0], r.HTTP); len(seen.Name) == 0 {
			seen.Name = append(seen.Name, playback.SessionID(r.HTTP)...)
		}
	}
	g.Audience.Request(&seen)
}

// example shows a request, in one line.
func (g *Gate) example(r *Request) string {
	path, agent := r.HTTP.URL.EscapedPath(), r.HTTP.UserAgent()
	return fmt.Sprintf("%s %s %s %s", g.manifests.now().UTC().Format(time.RFC3339), r.HTTP.Method, path[:min(len(path), 200)], agent[:min(len(agent), 100)])
}

// Observer is a keeper for explicit calls: one whose policy only observes is
// refused nothing.
type Observer struct {
	*lease.Keeper
	Local    guard.Store // where the Keeper counts while the store is away
	Audience *audience.Audience
	Ending   <-chan struct{} // closed when nothing is to wait any more
	Gate     *Gate           // knows who has left; nil: nobody does
}

// Acquire implements guard.Store. A start that is in doubt waits. Of who is only
// observed, a playback that was ended gets a guard under another id, the same each
// time.
func (o Observer) Acquire(ctx context.Context, c guard.Claim, p guard.Policy) (guard.Verdict, error) {
	if !p.Observe {
		c.Patience = min(shortPatience, p.TTL)
		return WaitOut(ctx, o.Ending, o.Keeper, c, o.Gate.asking(ctx, func(c guard.Claim) (guard.Verdict, error) { return o.Keeper.Acquire(ctx, c, p) }))
	}
	v, err := o.Keeper.Acquire(ctx, c, p)
	if err == nil && v.Outcome.Ended() {
		c.ID = guard.DeriveID(c.User, c.Device, "revoked\x00"+c.ID.String())
		v, err = o.Keeper.Acquire(ctx, c, p)
	}
	if v.Outcome == guard.Admitted {
		starts(ctx, o.Audience, o.Keeper, o.Local, &audience.Start{At: v.Guard.CreatedAt, Claim: c, Policy: p, Example: "POST " + c.Stream}, &v)
	}
	return v, err
}

// Refresh implements guard.Store. A guard that was revoked is just not there
// for who is only observed.
func (o Observer) Refresh(ctx context.Context, user string, id guard.ID, p guard.Policy) (guard.Verdict, error) {
	v, err := o.Keeper.Refresh(ctx, user, id, p)
	return o.refreshed(user, v, p), err
}

// Keep is Refresh for what players report.
func (o Observer) Keep(ctx context.Context, c guard.Claim, p guard.Policy) (guard.Verdict, error) {
	v, err := o.Keeper.Keep(ctx, c, p)
	return o.refreshed(c.User, v, p), err
}

// refreshed is the verdict for whoever refreshes a guard; where that is only observed,
// it is told of.
func (o Observer) refreshed(user string, v guard.Verdict, p guard.Policy) guard.Verdict {
	switch {
	case !p.Observe:
	case v.Outcome.Ended():
		v.Outcome = guard.Absent
	case v.Outcome == guard.Refreshed:
		o.Audience.Request(&audience.Request{At: time.Now(), User: user, ID: v.Guard.ID, TTL: p.TTL, Goes: true})
	}
	return v
}
