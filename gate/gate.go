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

	"github.com/streamguard/streamguard/audience"
	"github.com/streamguard/streamguard/connection"
	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/lease"
	"github.com/streamguard/streamguard/playback"
	"github.com/streamguard/streamguard/problem"
)

// Gate decides by the guards of a store. Create it with New.
type Gate struct {
	Keeper   *lease.Keeper
	Local    guard.Store        // where the Keeper counts while the store is away
	Audience *audience.Audience // of what is only observed

	Naming    Naming
	Anonymous Anonymous
	OnError   OnError

	// Observing reports whether all requests are only observed from now on, whatever
	// Mode they came with. Optional.
	Observing func() bool

	// Ending is closed when nothing is to wait any more.
	Ending <-chan struct{}
	// Hold keeps the store of the Keeper open until what it returns is called: an answer
	// may last longer than what the gate is part of. Optional.
	Hold func() (release func())
	// Connections know what clients have just left. Nil where that says nothing.
	Connections *connection.Registry

	*Memory
}

// Memory is what a node remembers of requests, beside the Keeper's leases. Gates of
// one Keeper share it, and those of its next configuration.
type Memory struct {
	manifests *manifests
	clients   *clients
	sending   *sending
}

// NewMemory returns one that remembers nothing.
func NewMemory() *Memory { return NewMemoryAt(time.Now) }

// NewMemoryAt returns one that goes by another clock.
func NewMemoryAt(clock func() time.Time) *Memory {
	return &Memory{newManifests(clock), new(clients), new(sending)}
}

// New returns a gate that decides by the guards of a Keeper's store.
func New(keeper *lease.Keeper, local guard.Store, seen *audience.Audience, memory *Memory) *Gate {
	return &Gate{Keeper: keeper, Local: local, Audience: seen, Memory: memory}
}

// Naming is how a playback is known that does not say who it is.
type Naming uint8

const (
	// ByToken sends every manifest to a URL of its playback's own.
	ByToken Naming = iota
	// ByStream takes all of a user's playbacks of one stream that name nothing for one.
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
	// Kind is playback.Manifest or playback.Media.
	Kind playback.Kind
	// Movable says that the request may be sent to another URL of the same
	// path: it is a manifest by its own URL, not only by a rewritten one.
	Movable bool

	User   string // "" for nobody
	Device string // "" where it is not known
	Client guard.Client
	Stream string
	Labels guard.Labels
	Token  *guard.ID // that was in the path, or nil
	// Behind says that a gate in front has taken the token out of the path.
	Behind bool
	// Fallback names the playback where the request itself does not.
	Fallback string

	Policy guard.Policy
	Mode   Mode
	// Refused says that somebody else has refused the request already: whatever it was for,
	// it does not play.
	Refused bool
	// Endless says that the answer has no end, as a log tells that has seen it.
	Endless bool

	// Invalid is what is wrong with the request, if anything.
	Invalid *problem.Problem

	url     address // as it was when the request came; what is behind the gate may change it
	passage Passage // in one piece with its request
}

type address struct{ host, path, query string }

func (r *Request) address() address {
	if r.url.path == "" {
		u := r.HTTP.URL
		r.url = address{r.HTTP.Host, u.Path, u.RawQuery}
	}
	return r.url
}

// Passage is a request on its way. It begins with the decision; a manifest's body
// may change that; and it has to End.
type Passage struct {
	Decision
	gate    *Gate
	request *Request
	claim   guard.Claim
	trial   *lease.Trial
	counted bool // the claim is what keeps its playback alive
	led     bool // a manifest has led to it, by its token
	answer  answer
}

// Begin decides about a request. The passage is part of the request.
func (g *Gate) Begin(ctx context.Context, r *Request) *Passage {
	p := &r.passage
	p.gate, p.request = g, r
	r.address()
	p.Decision = Decision{Held: Unknown, Limit: Unknown}
	p.enforce(g.judge(ctx, r, p))
	if p.Refusal != nil && r.Mode == Enforce && g.observing() { // since it came: it may have waited
		r.Mode, p.Decision = Observe, Decision{Held: Unknown, Limit: Unknown}
		p.enforce(g.judge(ctx, r, p))
	}
	if r.Mode == Observe && !r.Refused {
		p.seen()
	}
	return p
}

// Guard is the guard that the request is part of; zero if it is part of none.
func (p *Passage) Guard() guard.ID {
	if p.claim.Nameless {
		return p.gate.Keeper.Serving(p.ID)
	}
	return p.ID
}

// IsTrial reports whether it matters how the request is answered.
func (p *Passage) IsTrial() bool { return p.trial != nil }

// End is the moment when the answer is over: what the request has made goes if it
// delivered nothing and nothing else did meanwhile.
func (p *Passage) End(delivered bool) {
	p.trial.End(delivered)
	p.trial = nil
}

// enforce makes a decision of what stands in the way of the request, if anything.
func (p *Passage) enforce(refusal *problem.Problem) {
	p.Refusal = refusal
	if refusal != nil && p.request.Mode == Observe && refusal.ErrorCode != problem.MissingUser {
		p.Refusal, p.Would, p.Word = nil, refusal, WouldReject
	}
	p.Redirects = p.Redirects && p.Refusal == nil && p.Gone == nil
	switch {
	case p.Word == "":
		p.Word = wordOf(&p.Decision)
	case p.Redirects && p.Would == nil:
		p.Word = Redirected
	}
}

// judge returns what stands in the way of a request, if anything, and says in its
// passage what else it found.
func (g *Gate) judge(ctx context.Context, r *Request, p *Passage) *problem.Problem {
	switch {
	case r.Invalid != nil:
		return r.Invalid
	case r.User == "" && g.Anonymous == Allow:
		p.Word = Passed
		return nil
	case r.User == "":
		return problem.New(problem.MissingUser, "nobody is logged in")
	}
	if r.Kind == playback.Manifest {
		if said, _ := g.Said(r); said.List {
			p.Word = Listed
			return nil
		}
	}
	who := g.identify(r)
	p.BrokenCMCD = who.broken
	looks := r.Kind == playback.Manifest || r.HTTP.Method == http.MethodHead || r.Refused
	p.claim = guard.Claim{
		User: r.User, Device: r.Device, Stream: r.Stream, Labels: r.Labels, Client: r.Client, ID: who.id,
		Named: who.named && !looks, Nameless: !who.named,
	}
	claim := &p.claim
	if looks {
		claim.Intent = guard.Look
	}
	asks := asksFor(r)
	mints := g.Naming == ByToken && r.Kind == playback.Manifest && r.Movable && !who.tokened
	switch {
	case who.tokened:
		p.led = true
		p.Alternates = g.clients.alternate(claim.ID, r.Client)
		// Its manifest says the stream, unless that is an interstitial's.
		claim.Keeps = r.Kind == playback.Media || g.manifests.isAd(claim.ID, r.Stream)
	case r.Kind == playback.Manifest:
		claim.Anew, claim.Reloads = asks, !mints
	}
	p.ID, p.Limit, p.Redirects = claim.ID, r.Policy.Limit, mints
	if who.primary != nil && g.interstitial(ctx, r, p, *who.primary) {
		return nil
	}
	if mints && claim.Nameless {
		p.Word, p.ID, p.Limit = Redirected, g.manifests.token(r), Unknown
		return nil
	}
	if g.Naming == ByToken && claim.Nameless {
		if to, ok := g.manifests.led.get(g.manifests.stream(claim)); ok {
			claim.ID, p.ID, p.led = to.id, to.id, true
			claim.Nameless = !g.manifests.begins(to)
		}
	}
	g.knownPath(r, claim)
	switch {
	case p.led:
	case r.Endless && g.mayBePath(r, claim):
		nameByPath(claim, g.pathOf(r))
	default:
		g.waitForPath(ctx, r, claim)
	}
	p.ID = claim.ID
	if held, trial, ok := g.Keeper.Known(claim, g.policy(r)); ok {
		p.Word, p.Held, p.trial, p.counted = Known, held, trial, true
		p.leads(&who)
		return nil
	}
	if primary, ok := g.manifests.within.get(g.manifests.name(claim.ID)); ok && who.primary == nil && !who.tokened && g.interstitial(ctx, r, p, primary) {
		return nil
	}
	if r.Token != nil && looks && asks {
		claim.Anew, claim.Reloads = g.manifests.anew(r)
	}
	if g.mayBePath(r, claim) {
		claim.Path = g.pathOf(r)
	}
	refusal := g.ask(ctx, r, p, *claim)
	if p.counted = refusal == nil && p.Gone == nil; p.counted {
		p.leads(&who)
	}
	if claim.Path != (guard.ID{}) && p.ID == claim.Path {
		p.isPath(p.ID) // as another node knows
	}
	return refusal
}

// asksFor reports whether a request is to get something now, and not only to see.
func asksFor(r *Request) bool {
	return r.HTTP.Method == http.MethodGet && !playback.IsPrefetch(r.HTTP)
}

// policy is what a request is asked about by.
func (g *Gate) policy(r *Request) *guard.Policy {
	if r.Mode == Observe {
		observed := r.judgedBy()
		return &observed
	}
	return &r.Policy
}

// judgedBy is that policy for whoever goes on asking when the request may be over.
func (r *Request) judgedBy() guard.Policy {
	if r.Mode == Observe {
		return Observed(r.Policy)
	}
	return r.Policy
}

// observing reports what Observing does.
func (g *Gate) observing() bool { return g.Observing != nil && g.Observing() }

// judgedBy is the policy for whoever asks in the passage's name later on.
func (p *Passage) judgedBy() guard.Policy {
	if p.gate.observing() {
		return Observed(p.request.Policy)
	}
	return p.request.judgedBy()
}

// ask has the store decide about a playback that this node does not know.
func (g *Gate) ask(ctx context.Context, r *Request, p *Passage, claim guard.Claim) *problem.Problem {
	d, start := &p.Decision, g.manifests.now()
	if claim.Keeps || claim.Stream == "" { // a playlist may not say what its master did
		if stream, ok := g.Keeper.LookedAt(claim.ID); ok {
			claim.Stream = stream
		}
	}
	if r.Mode != Observe {
		claim.Patience = g.manifests.patience(r)
	}
	policy, waited := g.policy(r), false
	leavers := g
	if !asksFor(r) && claim.Intent != guard.Play {
		leavers = nil
	}
	v, err := WaitOut(ctx, g.Ending, g.Keeper, claim, leavers.asking(ctx, func(c guard.Claim) (v guard.Verdict, err error) {
		v, p.trial, err = g.Keeper.Ask(ctx, c, *policy)
		waited = waited || v.Outcome == guard.Doubted
		return v, err
	}))
	d.Asked = g.manifests.now().Sub(start)
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
	if v.Outcome == guard.Vacant && asksFor(r) {
		g.manifests.leads(&claim, waited, policy.TTL)
	}
	if v.Guard.ID != (guard.ID{}) {
		d.ID = v.Guard.ID
	}
	if r.Mode == Observe && (v.Outcome == guard.Admitted || v.Outcome == guard.Uncounted && !v.Repeated || v.Outcome == guard.Vacant && r.Refused) {
		return g.observe(ctx, r, d, claim, v)
	}
	if v.Outcome.Pass() {
		d.Replaces = len(v.Replaced) > v.Taken
		return nil
	}
	d.Repeated, d.SelfRefused = v.Repeated, audience.SelfRefused(g.manifests.now(), &claim, &v)
	d.Again = g.manifests.again(r)
	return problem.Refused(v)
}
