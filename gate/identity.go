package gate

import (
	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/playback"
)

// identity is which playback a request is part of.
type identity struct {
	id      guard.ID
	named   bool      // the request names it; otherwise id is that of its client and stream
	tokened bool      // by a path token
	broken  bool      // there is CMCD in the request that cannot be read
	primary *guard.ID // of an interstitial: the playback that it interrupts
}

// identify finds out which playback a request is part of. What names it is, in
// this order: the path token; the guard query parameter or the Stream-Guard-Id
// header; the CMCD session id; X-Playback-Session-Id; the request's Fallback.
func (g *Gate) identify(r *Request) (who identity) {
	if primary := playback.PrimaryID(r.HTTP); primary != "" {
		who.primary = new(guard.DeriveID(r.User, r.Device, primary))
	}
	if r.Token != nil {
		who.id, who.named, who.tokened = g.own(r, *r.Token), true, true
		return who
	}
	if id, ok := playback.ExplicitID(r.HTTP); ok {
		who.id, who.named, who.tokened = g.own(r, id), true, r.Behind
		return who
	}
	var buf [64]byte
	key := playback.CMCDSessionID(buf[:0], r.HTTP)
	if len(key) == 0 {
		who.broken = playback.HasCMCD(r.HTTP)
		key = append(key, playback.SessionID(r.HTTP)...)
	}
	if len(key) == 0 && g.Naming == ByFallback {
		key = append(key, r.Fallback...)
	}
	if len(key) > 0 {
		who.id, who.named = guard.DeriveID(r.User, r.Device, key), true
		return who
	}
	client := ""
	if g.Naming == ByToken {
		client = r.Client.String()
	}
	who.id = guard.DeriveID(r.User, r.Device, "stream\x00"+client+"\x00"+r.Stream)
	return who
}

// own is the playback that an id means in a request: that itself if it was made for
// the request's user and device, otherwise one derived from it. A device that is not
// known, now or when the id was made, may be any.
func (g *Gate) own(r *Request, id guard.ID) guard.ID {
	switch {
	case id.Of(r.User, r.Device), id.Of(r.User, ""):
		if r.Device != "" {
			g.manifests.ids.put(g.manifests.id(r, id), true, rememberPath)
		}
		return id
	case r.Device == "":
		if seen, _ := g.manifests.ids.get(g.manifests.id(r, id)); seen {
			return id
		}
	}
	return guard.DeriveID(r.User, r.Device, id.String())
}

// id is the key of an id that a user's device has shown.
func (m *manifests) id(r *Request, id guard.ID) uint64 { return m.key("id", r.User, string(id[:])) }

// Named is the playback that a request names, if it names one. Requests for
// media that name it alike are part of it.
func (g *Gate) Named(r *Request) (guard.ID, bool) {
	who := g.identify(r)
	return who.id, who.named
}
