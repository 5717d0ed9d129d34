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

const (
	denialTime = 2 * time.Second // how long a refusal is remembered

	// Guards that denials name: up to 1000 each, with 1200 bytes at most.
	maxInTheWay = 1 << 18
)

// denials are refusals that are remembered, so that a player that asks again
// and again does not ask the store.
type denials struct {
	byID     *xsync.Map[guard.ID, denial]
	inTheWay atomic.Int64 // guards that they name
}

type denial struct {
	at      moment
	starts  bool   // whether a start was refused, which may do more than others
	stream  string // another one may be allowed,
	policy  guard.Policy
	verdict *guard.Verdict
}

func newDenials() denials { return denials{byID: xsync.NewMap[guard.ID, denial]()} }

// denied is the verdict of a claim that was refused lately.
func (k *Keeper) denied(c *guard.Claim, p *guard.Policy) (v guard.Verdict, ok bool) {
	now := k.now()
	d, ok := k.denials.byID.Load(c.ID)
	if !ok || now.since(d.at) >= denialTime || !d.answers(c, p) || k.anyEndedSince(d.verdict.InTheWay, d.at) {
		return v, false
	}
	v = *d.verdict
	v.FreeIn = max(v.FreeIn-now.since(d.at), time.Second)
	v.Repeated = true
	return v, true
}

// answers reports whether a claim would be refused like the one before.
func (d *denial) answers(c *guard.Claim, p *guard.Policy) bool {
	return d.stream == c.Stream && (d.starts || !c.Intent.Starts()) && reflect.DeepEqual(&d.policy, p)
}

func (d *denials) len() int { return d.byID.Size() }

func (d *denials) put(at moment, c guard.Claim, p guard.Policy, v guard.Verdict) {
	if d.len() >= MaxDenials || d.inTheWay.Load() >= maxInTheWay {
		return
	}
	d.inTheWay.Add(int64(len(v.InTheWay)))
	before, there := d.byID.LoadAndStore(c.ID, denial{at, c.Intent.Starts(), strings.Clone(c.Stream), p, detached(v)})
	if there {
		d.inTheWay.Add(-int64(len(before.verdict.InTheWay)))
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
	d.byID.Range(func(id guard.ID, dn denial) bool {
		if now.since(dn.at) >= denialTime {
			d.delete(id)
		}
		return true
	})
}
