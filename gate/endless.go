package gate

import (
	"context"
	"path"
	"time"

	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/playback"
)

// An answer to a request for media that says no length, and to which no manifest has
// led, is endless as far as anybody can say: a channel as one .ts, or a radio. When it
// has lasted for a second or a little more, and its request has no name, its path becomes one:
// the guard that was made for the request is the path's from then on, so that another
// channel is another playback. If it is over soon after all, it was a segment of which
// nobody knew, and all paths of its client are one playback again.

// isLed reports whether a manifest has led to a playback.
func (p *Passage) isLed() bool {
	led, _ := p.gate.manifests.manifested.get(p.gate.manifests.name(p.claim.ID))
	return led || p.led
}

// leads remembers of a manifest without a token that it has led to its playback.
func (p *Passage) leads(who *identity) {
	if r := p.request; r.Kind == playback.Manifest && !who.tokened && asksFor(r) {
		m := p.gate.manifests
		m.manifested.put(m.name(p.claim.ID), true, rememberPath)
	}
}

// pathOf is the playback of a request's path.
func (g *Gate) pathOf(r *Request) guard.ID {
	return guard.DeriveID(r.User, r.Device, "path\x00"+r.Client.String()+"\x00"+r.Stream+"\x00"+r.address().path)
}

func (m *manifests) longPath(r *Request) uint64 {
	return m.key("long", r.User, r.Device, r.Client.String(), r.Stream, r.address().path)
}

// short is the key of what a client's paths of a stream have seemed to be.
func (m *manifests) short(r *Request) uint64 {
	return m.key("short", r.User, r.Device, r.Client.String(), r.Stream)
}

// mayBePath reports whether the path of a request without a name may become one.
func (g *Gate) mayBePath(r *Request, c *guard.Claim) bool {
	return g.Naming == ByToken && r.Kind == playback.Media && c.Nameless
}

// nameByPath has a claim be that of its path.
func nameByPath(c *guard.Claim, id guard.ID) {
	c.ID, c.Path, c.Long, c.Nameless, c.Named = id, guard.ID{}, true, false, c.Intent == guard.Play
}

// knownPath has the claim of a request be that of its path, where that is known as one
// of an endless answer.
func (g *Gate) knownPath(r *Request, c *guard.Claim) {
	if m := g.manifests; g.mayBePath(r, c) && m.longPaths.Load() {
		if id, ok := m.byPath.get(m.longPath(r)); ok {
			nameByPath(c, id)
		}
	}
}

// waitForPath has a request without a name wait as long as another's answer, which has
// made the guard of both, may be an endless one of another path: that is known after a
// second or a little more. A segment of which nobody knows the manifest waits for the
// one before, at most.
func (g *Gate) waitForPath(ctx context.Context, r *Request, c *guard.Claim) {
	if r.Mode == Observe || !g.mayBePath(r, c) || !asksFor(r) {
		return
	}
	if _, short := g.manifests.shorts.get(g.manifests.short(r)); short {
		return
	}
	for g.sending.mayBeginPath(r, c.ID) {
		select {
		case <-time.After(changed):
		case <-ctx.Done():
			return
		case <-g.Ending:
			return
		}
	}
}

// mayBeginPath reports whether an answer that has made a guard may be endless, and of
// another path of the same kind than a request's.
func (s *sending) mayBeginPath(r *Request, id guard.ID) bool {
	if s.size.Load() == 0 {
		return false
	}
	part := s.part(id)
	part.mu.Lock()
	defer part.mu.Unlock()
	for p := part.first; p != nil; p = p.answer.next {
		other, ours := p.request.address().path, r.address().path
		if p.Word == Admitted && other != ours && path.Ext(other) == path.Ext(ours) && p.mayBeginPath(id) {
			return true
		}
	}
	return false
}

func (p *Passage) mayBeginPath(id guard.ID) bool {
	a := &p.answer
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.endless && a.met <= longEnough+1 && !a.lasts && !a.over && p.claim.ID == id && p.claim.Nameless
}

// isPath has a passage be under its path's name from now on.
func (p *Passage) isPath(id guard.ID) {
	m, r := p.gate.manifests, p.request
	m.longPaths.Store(true)
	m.byPath.put(m.longPath(r), id, r.Policy.TTL)
	nameByPath(&p.claim, id)
}

// begin is the moment when an endless answer has lasted.
func (d *due) begin() {
	g, r, m := d.gate, d.request, d.gate.manifests
	var refused bool
	if g.mayBePath(r, &d.claim) && !g.Keeper.IsServed(d.claim.ID) {
		if other, ok := m.shorts.get(m.short(r)); ok && other != m.longPath(r) {
			return
		}
		was := d.claim.ID
		nameByPath(&d.claim, g.pathOf(r))
		d.claim.For = was
		refused = d.ask()
		d.claim.For = guard.ID{}
	} else if !d.claim.Long { // that it goes on says more than a single request
		g.Keeper.Refresh(context.Background(), r.User, d.claim.ID, d.policy)
	}
	if refused {
		return
	}
	a := &d.answer
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case !a.done:
		if a.lasts = true; d.claim.Long {
			d.isPath(d.claim.ID)
		}
		g.sending.count(d.Passage, d.claim.ID, 1)
		if g.Connections != nil { // another that was begun before is over, perhaps
			g.Connections.Asked(d.claim.ID)
		}
	case a.short: // meanwhile
		d.wasShort(&d.claim)
	default:
		d.leaves(&d.claim, nil)
	}
}

// leaves says that an endless answer of a playback is over, which is over itself unless
// something else is asked for it soon. release, which may be nil, gives back the store.
func (p *Passage) leaves(of *guard.Claim, release func()) {
	g := p.gate
	switch {
	case g.Connections != nil && p.request.Policy.Reclaim != guard.ReclaimOff && !g.sending.last(of.ID) && !p.sendsPart(of.ID):
		g.Connections.Ends(g.playback(of), release)
	case release != nil:
		release()
	}
}

// sendsPart reports whether an answer with a length is being sent of the playback: a part
// of what the endless answer was. It is in the table by the name that it began under.
func (p *Passage) sendsPart(id guard.ID) bool {
	own, by := p.answer.part, p.gate.sending.part(id)
	return own.sends(id) || by != own && by.sends(id)
}

// ask has the store decide about a playback that this node does not know, or not by
// this name. If it may not go on, its answer is over.
func (d *due) ask() (refused bool) {
	v, trial, err := d.gate.Keeper.Ask(context.Background(), d.claim, d.policy)
	trial.End(true)
	a := &d.answer
	a.mu.Lock()
	switch {
	case err != nil || v.Outcome == guard.Admitted || v.Outcome == guard.Refreshed:
	case v.Outcome.Pass() || d.policy.Observe:
		a.asksAt = a.met + askAgain
	default:
		a.over = true
	}
	refused = a.over
	ends := a.over && a.endless
	a.mu.Unlock()
	if ends {
		a.end()
	}
	return refused || err != nil
}

// wasShort says that an answer which seemed to be endless was not.
func (p *Passage) wasShort(c *guard.Claim) {
	if !c.Long {
		return
	}
	g, r, m := p.gate, p.request, p.gate.manifests
	m.shorts.put(m.short(r), m.longPath(r), rememberPath)
	m.byPath.put(m.longPath(r), guard.ID{}, 0)
	claim := *c
	claim.Intent, claim.Named, claim.Long, claim.Short = guard.Look, false, false, true
	g.Keeper.Store.Acquire(context.Background(), claim, r.judgedBy())
}
