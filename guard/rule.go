package guard

import (
	"iter"
	"slices"
	"strings"
	"time"
)

// AtLimit is what becomes of a playback that starts when all slots are taken.
type AtLimit uint8

const (
	// Reject refuses it.
	Reject AtLimit = iota
	// ReplaceDevice revokes the oldest guard of the same device for it. Where
	// the device is not known or holds none, it is refused.
	ReplaceDevice
	// ReplaceOldest revokes the oldest guard for it.
	ReplaceOldest
)

// Rule limits how many of a user's guards agree in one thing: one guard for
// each device, say. What is not known agrees with nothing.
type Rule struct {
	Per     string // "stream", "device", or the name of a label; "" counts all guards
	Limit   int
	AtLimit AtLimit
}

// AllRules are the policy's rules and, as the last, its limit: what another
// rule replaces makes room under it.
func (p *Policy) AllRules() []Rule {
	if p.Observe {
		return []Rule{{Limit: MaxLimit}}
	}
	return append(p.Rules[:len(p.Rules):len(p.Rules)], Rule{"", p.Limit, p.AtLimit})
}

// With is the policy with another AtLimit for all that do not replace anyway.
func (p Policy) With(a AtLimit) Policy {
	p.AtLimit, p.Rules = a, slices.Clone(p.Rules)
	for i := range p.Rules {
		p.Rules[i].AtLimit = max(p.Rules[i].AtLimit, a)
	}
	return p
}

// covers reports whether the rule counts one guard beside the other.
func (r Rule) covers(a, b *Guard) bool {
	if r.Per == "" {
		return true
	}
	is := r.of(a)
	return is != "" && is == r.of(b)
}

// of is what the rule goes by.
func (r Rule) of(g *Guard) string {
	switch r.Per {
	case "stream":
		return g.Stream
	case "device":
		return g.Device
	}
	return g.Labels.Get(r.Per)
}

// replaces reports whether a new guard may take the place of another.
func (r Rule) replaces(other, g *Guard) bool {
	return r.AtLimit == ReplaceOldest || r.AtLimit == ReplaceDevice && g.Device != "" && other.Device == g.Device
}

// beside are those of the guards that the rule counts with g.
func (r Rule) beside(g *Guard, guards []Guard) []Guard {
	var counted []Guard
	for i := range guards {
		if o := &guards[i]; o.ID != g.ID && r.covers(o, g) {
			counted = append(counted, *o)
		}
	}
	return counted
}

// writeOn changes a guard to what the claim says.
func (c *Claim) writeOn(g *Guard) {
	g.User = written(g.User, c.User)
	g.Stream = written(g.Stream, c.Stream)
	g.Device = written(g.Device, c.Device)
	g.Labels = c.Labels.over(g.Labels)
}

// written is a copy of what is claimed, since a guard outlives the request that
// this may be a part of; or what was written before, if that says the same or
// nothing else is known.
func written(before, claimed string) string {
	if claimed == "" || claimed == before {
		return before
	}
	return strings.Clone(claimed)
}

// Refuse fills in what a Rejected verdict says of the rule that refuses the
// claim: of the user's guards those in the way, and when there is room again.
func (v *Verdict) Refuse(now time.Time, r Rule, guards []Guard, c Claim, p Policy) {
	g := Guard{ID: c.ID}
	for _, own := range guards {
		if own.ID == c.ID {
			g = own
		}
	}
	c.writeOn(&g)
	v.Rule, v.InTheWay = r, r.beside(&g, guards)
	v.FreeIn = freeIn(now, v.InTheWay, r.Limit, p)
}

// freeIn is how long until the guards leave a slot free under a limit if
// nobody refreshes them, or p.TTL where a limit of 0 leaves none at all.
func freeIn(now time.Time, guards []Guard, limit int, p Policy) time.Duration {
	if limit < 1 || limit > len(guards) {
		return p.TTL
	}
	ends := make([]time.Time, len(guards))
	for i, g := range guards {
		ends[i] = g.RemovedAt
		if p.ReclaimLapsed {
			ends[i] = g.ExpiresAt
		}
	}
	slices.SortFunc(ends, time.Time.Compare)
	return ends[len(guards)-limit].Sub(now)
}

// Labels are names with values, in one string: "\x1fname=value\x1f…\x1f". The
// zero value has none.
type Labels string

const separator = "\x1f"

// With adds a label. The name is of lower-case letters, digits and
// underscores, and not there yet; an empty value adds nothing.
func (l Labels) With(name, value string) Labels {
	if value == "" {
		return l
	}
	value = strings.ReplaceAll(value, separator, "_")
	if l == "" {
		l = separator
	}
	return l + Labels(name+"="+value+separator)
}

// over are these labels and, as far as there is room, those of the others that
// have other names.
func (l Labels) over(others Labels) Labels {
	for name, value := range others.All() {
		if more := l.With(name, value); l.Get(name) == "" && len(more) <= MaxLabels {
			l = more
		}
	}
	return l
}

// Get is the value of a label, "" where it is not there.
func (l Labels) Get(name string) string {
	_, rest, _ := strings.Cut(string(l), separator+name+"=")
	value, _, _ := strings.Cut(rest, separator)
	return value
}

// All iterates over names and values.
func (l Labels) All() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for label := range strings.SplitSeq(strings.Trim(string(l), separator), separator) {
			if name, value, ok := strings.Cut(label, "="); ok && !yield(name, value) {
				return
			}
		}
	}
}
