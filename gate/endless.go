package gate

import (
	"context"

	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/playback"
	"github.com/streamguard/streamguard/problem"
)

// An answer to a request for media that says no length, and to which no manifest has
// led, is endless as far as anybody can say: a channel as one .ts, or a radio. Where
// its request has no name the path is one: the guard that was made for it is its
// path's from then on, so that another channel is another playback. If it ends soon
// after all, it was a segment of which nobody knew, and the paths of its client are
// one playback again.

// pathOf is the playback of a request's path.
func (g *Gate) pathOf(r *Request) guard.ID {
	return guard.DeriveID(r.User, r.Device, "path\x00"+r.Client.String()+"\x00"+r.Stream+"\x00"+r.HTTP.URL.Path)
}

func (m *manifests) longPath(r *Request) uint64 {
	return m.key("long path", r.User, r.Device, r.Client.String(), r.Stream, r.HTTP.URL.Path)
}

// short is the key of paths that seemed to be endless.
func (m *manifests) short(r *Request) uint64 {
	return m.key("short", r.User, r.Device, r.Client.String(), r.Stream)
}

// nameByPath has a claim be that of its path.
func nameByPath(c *guard.Claim, id guard.ID) {
	c.ID, c.Path, c.Long, c.Nameless, c.Named = id, guard.ID{}, true, false, c.Intent == guard.Play
}

// mayBePath reports whether the path of a request without a name may be one.
func (g *Gate) mayBePath(r *Request, c *guard.Claim) bool {
	return g.Naming == ByToken && r.Kind == playback.Media && c.Nameless
}

// knownPath has the claim of a request be that of its path, where that is known to
// have an endless answer.
func (g *Gate) knownPath(r *Request, c *guard.Claim) {
	if m := g.manifests; g.mayBePath(r, c) && m.longPaths.Load() {
		if id, ok := m.byPath.get(m.longPath(r)); ok {
			nameByPath(c, id)
		}
	}
}

// isPath says that a passage is under its path's name from now on.
func (p *Passage) isPath(id guard.ID) {
	m, r := p.gate.manifests, p.request
	m.longPaths.Store(true)
	m.byPath.put(m.longPath(r), id, r.Policy.TTL)
	p.answer.mu.Lock()
	nameByPath(&p.claim, id)
	p.answer.mu.Unlock()
	p.ID = id
}

// SaysNoLength is the moment when it shows that the answer to a request for media has
// no announced length, before anything of it is sent. What it returns the request is
// refused with, since it is another playback than it seemed to be.
func (p *Passage) SaysNoLength(ctx context.Context) *problem.Problem {
	g, r, m := p.gate, p.request, p.gate.manifests
	if p.answer.part == nil || p.led {
		return nil
	}
	if led, _ := m.manifested.get(m.name(p.claim.ID)); led {
		return nil
	}
	switch {
	case p.claim.Long:
		m.byPath.put(m.longPath(r), p.claim.ID, r.Policy.TTL)
	case g.mayBePath(r, &p.claim):
		path := m.longPath(r)
		if other, ok := m.shorts.get(m.short(r)); g.Keeper.IsServed(p.claim.ID) || ok && other != path {
			return nil
		}
		if refusal := p.rename(ctx); refusal != nil || !p.claim.Long {
			return refusal
		}
		m.shorts.put(m.short(r), 0, 0)
	case p.trial != nil: // that it goes on is more than a single request says
		p.End(true)
		g.Keeper.Refresh(ctx, r.User, p.claim.ID, *g.policy(r))
	}
	p.answer.mu.Lock()
	p.answer.endless = true
	p.answer.mu.Unlock()
	return nil
}

// rename has the guard that was made for a request be that of its path.
func (p *Passage) rename(ctx context.Context) *problem.Problem {
	g, r, before := p.gate, p.request, p.Decision
	p.End(true)
	claim := p.claim
	nameByPath(&claim, g.pathOf(r))
	claim.For, p.Word = p.claim.ID, ""
	p.enforce(g.ask(ctx, r, p, claim))
	switch {
	case p.Refusal != nil && p.Unavailable == nil:
		return p.Refusal
	case p.Unavailable != nil || p.Gone != nil: // then it stays what it is
		p.Decision = before
		return nil
	}
	p.Word = before.Word
	if before.Would != nil {
		p.Would, p.Word = before.Would, before.Word
	}
	p.answer.part.leave(p)
	p.isPath(claim.ID)
	g.sending.part(claim.ID).enter(p)
	asked(claim.ID)
	return nil
}

// wasShort says that an answer which seemed to be endless was not.
func (p *Passage) wasShort() {
	if !p.claim.Long {
		return
	}
	g, r, m := p.gate, p.request, p.gate.manifests
	m.shorts.put(m.short(r), m.longPath(r), rememberPath)
	m.byPath.put(m.longPath(r), guard.ID{}, 0)
	claim := p.claim
	claim.Intent, claim.Long, claim.Short = guard.Look, false, true
	g.Keeper.Store.Acquire(context.Background(), claim, *g.policy(r))
}
