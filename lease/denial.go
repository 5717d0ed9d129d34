package lease

import (
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/puzpuzpuz/xsync/v4"

	"github.com/streamguard/streamguard/guard"
)

// denialTime is how long a denial is remembered, at most.
var denialTime = guard.Paced(2 * time.Second)

// Guards that denials name: up to guard.MaxInTheWay each, with 1200 bytes at most.
const maxInTheWay = 1 << 18

// denials are verdicts without a guard that are remembered, so that a player
// that asks again and again does not ask the store.
type denials struct {
	byID     *xsync.Map[guard.ID, denial]
	inTheWay atomic.Int64 // guards that they name
}

type denial struct {
	at      moment
	lasts   time.Duration // from then on
	claim   uint64        // hash of all that was judged,
	policy  guard.Policy  // and what by
	verdict *guard.Verdict

	nameless bool     // the claim was of a request without a name
	path     guard.ID // and whose path may be one
}

func newDenials() denials { return denials{byID: xsync.NewMap[guard.ID, denial]()} }

// denied is the verdict of a claim that was denied lately, if it would be again.
func (k *Keeper) denied(c *guard.Claim, p *guard.Policy) (v guard.Verdict, ok bool) {
	d, ok := k.denials.byID.Load(c.ID)
	age := k.now().since(d.at)
	if !ok || age >= d.lasts || !k.alike(&d, c, p) {
		return v, false
	}
	if slices.ContainsFunc(d.verdict.InTheWay, func(g guard.Guard) bool { return k.endedSince(g.ID, d.at) }) {
		return v, false // there may be room
	}
	v = *d.verdict
	v.Limit, v.FreeIn, v.Repeated = p.Limit, max(v.FreeIn-age, 0), true
	return v, true
}

// alike reports whether a claim would be judged like the one before: a manifest
// is refused what its media are. One that was ended is not judged at all.
func (k *Keeper) alike(d *denial, c *guard.Claim, p *guard.Policy) bool {
	switch d.verdict.Outcome {
	case guard.Revoked:
		return d.path == c.Path
	case guard.Replaced:
		if c.Nameless && !d.nameless { // what is without a name others may serve
			return false
		}
		return d.path == c.Path && (!c.Anew || c.Reloads)
	case guard.Uncounted:
		if c.Intent == guard.Look {
			return false
		}
	}
	return d.claim == k.hashOf(*c) && reflect.DeepEqual(&d.policy, p)
}

func (d *denials) len() int { return d.byID.Size() }

// deny remembers a verdict for as long as nothing but an ending can change it:
// until the first guard in the way is over, or the revocation. Who was replaced a
// moment ago is to be heard by the store when he asks later than guard.Watched.
func (k *Keeper) deny(at moment, c guard.Claim, p guard.Policy, v guard.Verdict) {
	lasts := denialTime
	if !v.Outcome.Pass() {
		lasts = min(lasts, v.FreeIn)
	}
	if age := at.since(moment(k.ended.of(c.ID).Load())); v.Outcome == guard.Replaced && age >= 0 && age < guard.Watched {
		lasts = min(lasts, guard.Watched-age)
	}
	if lasts <= 0 || k.denials.len() >= MaxDenials || k.denials.inTheWay.Load() >= maxInTheWay {
		return
	}
	d := denial{at, lasts, k.hashOf(c), p, detached(v), c.Nameless, c.Path}
	k.denials.inTheWay.Add(int64(len(v.InTheWay)))
	if before, there := k.denials.byID.LoadAndStore(c.ID, d); there {
		k.denials.inTheWay.Add(-int64(len(before.verdict.InTheWay)))
	}
}

// detached is a verdict with copies of the names in it, which are parts of all
// that the store has answered.
func detached(v guard.Verdict) *guard.Verdict {
	v.InTheWay = slices.Clone(v.InTheWay)
	for i := range v.InTheWay {
		g := &v.InTheWay[i]
		g.User, g.Stream, g.Device = strings.Clone(g.User), strings.Clone(g.Stream), strings.Clone(g.Device)
		g.Labels = guard.Labels(strings.Clone(string(g.Labels)))
	}
	return &v
}

func (d *denials) delete(id guard.ID) {
	if before, there := d.byID.LoadAndDelete(id); there {
		d.inTheWay.Add(-int64(len(before.verdict.InTheWay)))
	}
}

func (d *denials) sweep(now moment) {
	d.byID.Range(func(id guard.ID, one denial) bool {
		if now.since(one.at) >= one.lasts {
			d.delete(id)
		}
		return true
	})
}
