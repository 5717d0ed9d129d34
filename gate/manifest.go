package gate

import (
	"context"
	"hash/maphash"
	"sync/atomic"
	"time"

	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/playback"
	"github.com/streamguard/streamguard/problem"
)

// What a node remembers of manifests that it has served.
type manifests struct {
	seed  maphash.Seed
	now   func() time.Time
	paths memory[playback.Survey] // what those of a path said last
	long  memory[bool]            // streams whose segments are long
	live  memory[given]           // the tokens of clients that may reload the first URL
	sent  memory[sent]            // the manifests that the origin has sent on, by token
	ads   memory[bool]            // streams of interstitials, under the playback they belong to
	led   memory[led]             // what clients' last manifests of streams were asked for under

	manifested memory[bool]     // names of playbacks whose manifest was asked for
	byPath     memory[guard.ID] // playbacks that are known by a path with an endless answer
	shorts     memory[uint64]   // of streams' clients: the path whose answer only seemed to be endless
	longPaths  atomic.Bool      // there has been one in byPath

	refused memory[bool] // what clients have asked for in vain

	ids    memory[bool]     // ids that requests of a known device have shown
	within memory[guard.ID] // which playback those of a name interrupt
}

// given is the token that a client was given for a manifest.
type given struct {
	id      guard.ID
	served  bool      // the manifest has been asked for under it
	reloads int       // of the URL without it
	at      time.Time // when it was given last
}

// led is the playback that a manifest has led to.
type led struct {
	id     guard.ID
	waited time.Time // until when, if it has: until what the client had there before was over
}

// begins reports whether media without a name can only be the playback's first, and
// not what its client had there before.
func (m *manifests) begins(l led) bool { return m.now().Sub(l.waited) < shortPatience }

// sent is a manifest, and whose, as memories know them.
type sent struct{ path, client uint64 }

const (
	rememberPath = time.Hour
	reloader     = 2 // reloads of who does nothing else, and may pause between them
)

var (
	longSegment   = guard.Paced(6 * time.Second)
	shortPatience = guard.Paced(10 * time.Second)
	longPatience  = guard.Paced(20 * time.Second)
	shortReload   = guard.Paced(10 * time.Second) // the least that a client's token is remembered
	justNow       = guard.Paced(2 * time.Second)  // within which a client has followed a redirect
)

func newManifests(clock func() time.Time) *manifests {
	m := &manifests{seed: maphash.MakeSeed(), now: clock}
	for _, memory := range []interface{ goBy(func() time.Time) }{&m.paths, &m.long, &m.live, &m.sent, &m.ads, &m.led, &m.manifested, &m.byPath, &m.shorts, &m.refused, &m.ids, &m.within} {
		memory.goBy(clock)
	}
	return m
}

func (m *manifests) key(of ...string) uint64 {
	var h maphash.Hash
	h.SetSeed(m.seed)
	for _, s := range of {
		h.WriteString(s)
		h.WriteByte(0)
	}
	return h.Sum64()
}

// client is the key of a client and a URL of its.
func (m *manifests) client(r *Request) uint64 {
	u := r.address()
	return m.key("live", r.User, r.Device, r.Client.String(), u.host, u.path, u.query)
}

// token is that of a playback that names nothing: the one that its client was first
// given for the same live manifest, or a new one.
func (m *manifests) token(r *Request) guard.ID {
	key := m.client(r)
	said, _ := m.paths.get(m.path(r))
	g, ok := m.live.get(key)
	if ok && said.Live && r.Client != 0 {
		g.reloads++
	} else {
		g = given{id: guard.NewID(r.User, r.Device)}
	}
	g.at = m.now()
	m.live.put(key, g, g.lasts(said, r.Policy.TTL))
	return g.id
}

// again reports whether a client that is refused a stream was refused it lately, and
// remembers it.
func (m *manifests) again(r *Request) bool {
	key := m.key("refused", r.User, r.Device, r.Client.String(), r.Stream)
	_, before := m.refused.get(key)
	m.refused.put(key, true, r.Policy.TTL)
	return before
}

// anew reports whether the manifest that a request asks for under a token was asked
// for without it just before: then who was replaced starts anew, or perhaps only
// reloads, as who has done so before.
func (m *manifests) anew(r *Request) (anew, reloads bool) {
	g, ok := m.live.get(m.client(r))
	anew = ok && g.id == *r.Token && m.now().Sub(g.at) < justNow
	return anew, anew && g.reloads >= reloader
}

// lasts is how long a client's token is remembered after it was given: for two
// reloads, so that two nodes which take turns know it; or if it reloads nothing but
// its first URL, for as long as its guard is.
func (g given) lasts(said playback.Survey, ttl time.Duration) time.Duration {
	if g.reloads >= reloader {
		return ttl
	}
	period := max(said.Period, said.Segment)
	return min(max(2*period+period/4, shortReload), ttl)
}

func (m *manifests) path(r *Request) uint64 {
	u := r.address()
	return m.key("path", u.host, u.path, u.query)
}

// leads remembers that a manifest has led to a playback. Media of its stream that
// have lost every name are probably of that.
func (m *manifests) leads(c *guard.Claim, waited bool, ttl time.Duration) {
	to := led{id: c.ID}
	if waited {
		to.waited = m.now()
	}
	m.led.put(m.stream(c), to, ttl)
}

func (m *manifests) stream(c *guard.Claim) uint64 {
	return m.key("led", c.User, c.Device, c.Client.String(), c.Stream)
}

// patience is how long a start waits for a doubted guard: for two of its requests.
func (m *manifests) patience(r *Request) time.Duration {
	if long, _ := m.long.get(m.key("long", r.Stream)); long {
		return min(longPatience, r.Policy.TTL)
	}
	return min(shortPatience, r.Policy.TTL)
}

// Said is what the manifest of a request said when it was served last, here.
func (g *Gate) Said(r *Request) (said playback.Survey, known bool) {
	return g.manifests.paths.get(g.manifests.path(r))
}

// learn keeps in mind what a manifest said, and that it was asked for under a token.
func (m *manifests) learn(r *Request, of sent, said playback.Survey) {
	m.paths.put(of.path, said, rememberPath)
	if given, ok := m.live.get(of.client); ok && said.Live && r.Token != nil && given.id == *r.Token && !given.served {
		given.served = true
		m.live.put(of.client, given, given.lasts(said, r.Policy.TTL))
	}
}

// SentOn is the moment when the origin answers a manifest request with where it is:
// what the manifest says there is said here.
func (p *Passage) SentOn() {
	if r, m := p.request, p.gate.manifests; r.Token != nil {
		m.sent.put(m.sentOn(r), sent{m.path(r), m.client(r)}, justNow)
	}
}

func (m *manifests) sentOn(r *Request) uint64 { return m.key("sent", string(r.Token[:])) }

// Manifest is the moment when the body of a manifest says what it names. Where no
// media of it come this way the manifest stands in for them: it takes the slot, or
// else returns what it is refused with. A list of titles passes even so.
func (p *Passage) Manifest(ctx context.Context, said playback.Survey) *problem.Problem {
	r, g, d := p.request, p.gate, &p.Decision
	m := g.manifests
	m.learn(r, sent{m.path(r), m.client(r)}, said)
	if said.Segment > longSegment {
		m.long.put(m.key("long", r.Stream), true, rememberPath)
	}
	if r.Token != nil {
		if from, ok := m.sent.get(m.sentOn(r)); ok {
			m.learn(r, from, said)
			m.sent.put(m.sentOn(r), sent{}, 0)
		}
	}
	switch {
	case r.User == "":
		return nil
	case said.List:
		d.Refusal, d.Would = nil, nil
		m.manifested.put(m.name(p.claim.ID), false, 0)
	case d.Refusal == nil && said.Elsewhere && asksFor(r) && (d.Word == Vacant || d.Word == Released):
		d.StandsIn = true
		claim := p.claim
		claim.Intent, claim.Named, claim.Anew = guard.Play, !claim.Nameless, false
		d.Word = ""
		p.enforce(g.ask(ctx, r, p, claim))
	}
	return d.Refusal
}
