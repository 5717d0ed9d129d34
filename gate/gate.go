// Package gate decides what becomes of a request for video, whoever tells of
// it: a web server that has the request at hand, another proxy that asks about
// it, or a log that is replayed.
//
// A Request says what is known: who asks, for what, under which policy. Begin
// finds out which playback the request is part of, and whether it may pass. The
// Passage that it returns has the Decision.
package gate

import (
	"context"
	"net/http"
	"time"

	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/lease"
	"github.com/streamguard/streamguard/playback"
	"github.com/streamguard/streamguard/problem"
)

// Gate decides by the guards of a store.
type Gate struct {
	Keeper *lease.Keeper
	Local  guard.Store // where the Keeper counts while the store is away
	Tally  *Tally      // of what is only observed

	Naming    Naming
	Anonymous Anonymous
	OnError   OnError
}

// Naming is how a playback is known that does not say who it is.
type Naming uint8

const (
	// ByToken sends its manifest to a URL of its own.
	ByToken Naming = iota
	// ByStream takes all of a user's playbacks of one stream for one.
	ByStream
	// ByFallback goes by Request.Fallback, and where that is empty by the stream.
	ByFallback
)

// Anonymous is what becomes of a request without a user.
type Anonymous uint8

const (
	Deny  Anonymous = iota // it is refused
	Allow                  // it passes, uncounted
)

// OnError is what becomes of a playback that is not known while the store
// cannot answer. The Keeper counts by itself where the policy says so; what
// comes to the gate is what could not be counted.
type OnError uint8

const (
	Pass   OnError = iota // it passes, uncounted
	Refuse                // it is answered 503
)

// Mode is what comes of a decision.
type Mode uint8

const (
	Enforce Mode = iota // a refused request is refused
	Observe             // it passes, and the Decision says what it would have been refused with
)

// Request is a request for a manifest or for media, and what is known about it.
type Request struct {
	// HTTP has what a player says of itself in the query and the headers. The
	// token has been taken out of its path.
	HTTP *http.Request
	// Received is the path as it came, tokens and all.
	Received string
	// Kind is playback.Manifest or playback.Media.
	Kind playback.Kind
	// Movable says that the request may be sent to another URL of the same
	// path: it is a manifest by its own URL, not only by a rewritten one.
	Movable bool

	User   string // "" for nobody
	Device string // "" where it is not known
	Stream string
	Labels guard.Labels
	Token  *guard.ID // that was in the path, or nil
	// Fallback names the playback where the request itself does not.
	Fallback string

	Policy guard.Policy
	Mode   Mode

	// Invalid is what is wrong with the request, if anything.
	Invalid *problem.Problem

	passage Passage // in one piece with its request
}

// Passage is a request on its way. It begins with the decision.
type Passage struct{ Decision }

// Begin decides about a request. The passage is part of the request.
func (g *Gate) Begin(ctx context.Context, r *Request) *Passage {
	p := &r.passage
	p.Decision = Decision{Held: Unknown, Limit: Unknown}
	d := &p.Decision
	d.Refusal = g.judge(ctx, r, d)
	if d.Refusal != nil && r.Mode == Observe && d.Refusal.ErrorCode != problem.MissingUser {
		d.Refusal, d.Would, d.Word = nil, d.Refusal, WouldReject
	}
	if d.Word == "" {
		d.Word = wordOf(d)
	}
	return p
}

// judge returns what stands in the way of a request, if anything, and says in d
// what else it found.
func (g *Gate) judge(ctx context.Context, r *Request, d *Decision) *problem.Problem {
	switch {
	case r.Invalid != nil:
		return r.Invalid
	case r.User == "" && g.Anonymous == Allow:
		d.Word = Passed
		return nil
	case r.User == "":
		return problem.New(problem.MissingUser, "nobody is logged in")
	}
	who := g.identify(r)
	d.BrokenCMCD = who.broken
	claim := guard.Claim{User: r.User, Device: r.Device, Stream: r.Stream, Labels: r.Labels, ID: who.id, Intent: guard.Continue}
	switch {
	case who.named && r.Kind == playback.Manifest:
		claim.Intent = guard.Start
		if g.Naming == ByToken && who.tokened {
			claim.Intent = guard.Look // some players open it under two tokens
		}
	case who.named:
	case g.Naming == ByToken && r.Kind == playback.Manifest && r.Movable:
		d.Word, d.ID = Redirected, guard.NewID(r.User, r.Device)
		return nil
	case r.Kind == playback.Manifest:
		claim.Intent = guard.Start
	default:
		claim.Intent = guard.Share
	}
	d.ID, d.Limit = claim.ID, r.Policy.Limit
	asked := r.Policy
	if r.Mode == Observe {
		asked = Observed(asked)
	}
	if held, ok := g.Keeper.Known(&claim, &asked); ok {
		d.Word, d.Held = Known, held
		return nil
	}
	return g.ask(ctx, r, d, claim, asked)
}

// ask has the store decide about a playback that this node does not know.
func (g *Gate) ask(ctx context.Context, r *Request, d *Decision, claim guard.Claim, asked guard.Policy) *problem.Problem {
	start := time.Now()
	v, err := g.Keeper.Ask(ctx, claim, asked)
	d.Asked = time.Since(start)
	switch {
	case err != nil && ctx.Err() != nil:
		d.Word, d.Gone = Gone, err
		return nil
	case err != nil:
		d.Word, d.Unavailable = Unavailable, err
		if g.OnError == Refuse {
			return problem.Unavailable()
		}
		return nil
	}
	d.Word, d.Held = Word(v.Outcome.String()), v.Held
	if v.Guard.ID != (guard.ID{}) {
		d.ID = v.Guard.ID
	}
	if r.Mode == Observe && (v.Outcome == guard.Admitted || v.Outcome == guard.Uncounted && !v.Repeated) {
		return g.observe(ctx, r, d, claim, v)
	}
	if v.Outcome.Pass() {
		return nil
	}
	d.Repeated = v.Repeated
	return problem.Refused(v)
}
