package gate

import (
	"context"

	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/playback"
)

// interstitial has a request for an advertisement or the like be part of the
// playback that it interrupts (RFC 8216bis, appendix D): it keeps that guard alive,
// and never moves it. It reports whether the request passes by it. Where that
// playback has only been looked at, the claim is made in its name; where nothing
// is known of it, the request is as any other.
func (g *Gate) interstitial(ctx context.Context, r *Request, p *Passage, primary guard.ID) bool {
	m, claim := g.manifests, &p.claim
	if r.Token != nil {
		primary = claim.ID
	}
	keep := *claim
	keep.ID, keep.Keeps, keep.Anew, keep.Named, keep.Nameless, keep.Stream = primary, true, false, false, false, ""
	if r.Kind == playback.Manifest {
		m.ads.put(m.ad(primary, r.Stream), true, rememberPath)
	}
	v, err := g.Keeper.Keep(ctx, keep, *g.policy(r))
	if err == nil && v.Outcome.Pass() {
		if r.Kind == playback.Manifest && !claim.Nameless && r.Token == nil { // its media say only their own name
			m.within.put(m.name(claim.ID), primary, rememberPath)
		}
		p.Word, p.ID, p.Held = Word(v.Outcome.String()), primary, v.Held
		return true
	}
	if stream, ok := g.Keeper.LookedAt(primary); ok {
		claim.ID, claim.Stream, claim.Keeps, claim.Nameless, claim.Anew = primary, stream, true, false, false
		claim.Named = claim.Intent == guard.Play
		p.ID = primary
	}
	return false
}

func (m *manifests) name(id guard.ID) uint64 { return m.key("name", string(id[:])) }

// Interrupts says that under the token of a request manifests of this stream are
// those of interstitials: they never move its guard.
func (g *Gate) Interrupts(r *Request, stream string) {
	if r.Token != nil && stream != r.Stream {
		g.manifests.ads.put(g.manifests.ad(g.own(r, *r.Token), stream), true, rememberPath)
	}
}

func (m *manifests) ad(id guard.ID, stream string) uint64 {
	return m.key("ad", string(id[:]), stream)
}

// isAd reports whether a stream is that of an interstitial within a playback.
func (m *manifests) isAd(id guard.ID, stream string) bool {
	is, _ := m.ads.get(m.ad(id, stream))
	return is
}
