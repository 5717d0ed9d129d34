package guard

import (
	"math"
	"time"
)

// Policy is the plan a claim is judged by.
type Policy struct {
	Limit    int           // guards a user may hold; MaxLimit at most, or Unlimited
	AtLimit  AtLimit       // what becomes of one more
	Rules    []Rule        // further limits: all must allow
	Interval time.Duration // a guard is active this long after its last refresh
	TTL      time.Duration // and exists this long; longer than Interval

	// Observe refuses nobody and replaces nobody, whatever the limits say. Of one
	// user it counts MaxObserved guards; a playback beyond is Uncounted.
	Observe bool

	Reclaim Reclaim // whose slots a start may take when it finds no other room

	// CountLocally lets a node count by itself while the store cannot answer.
	// It is not the store's concern.
	CountLocally bool
}

// Rule limits how many of a user's guards agree in one thing: one guard for
// each device, say. A guard of which that thing is not known agrees with none.
type Rule struct {
	Per     string // "stream", "device", "client", or the name of a label; "" counts all guards
	Limit   int    // MaxLimit at most, or Unlimited
	AtLimit AtLimit
}

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

// Defaults of a Policy.
const (
	DefaultLimit    = 3
	DefaultInterval = 60 * time.Second
	DefaultTTL      = 90 * time.Second
)

// Unlimited is a limit that refuses nobody: beyond MaxLimit guards a playback
// is Uncounted.
const Unlimited = math.MaxInt32

// Bounds on what one user can make a store hold and answer.
const (
	MaxLimit    = 1000 // guards under one user, and the highest limit
	MaxObserved = 64   // guards under one user whom a policy only observes
	MaxMarks    = 32   // ended playbacks remembered under one user
	MaxInTheWay = 16   // guards that a refusal shows
	MaxUser     = 256  // bytes in a user
	MaxLabel    = 255  // bytes in a stream or a device

	MaxLabels = 1024 // bytes in a guard's Labels
)

// bound is how many guards a new one may be among.
func (p *Policy) bound() int {
	if p.Observe {
		return MaxObserved
	}
	return MaxLimit
}

// AllRules are the policy's rules and, as the last, its limit: what another
// rule replaces makes room under it.
func (p *Policy) AllRules() []Rule {
	if p.Observe {
		return []Rule{{Limit: Unlimited}}
	}
	rules := append(p.Rules[:len(p.Rules):len(p.Rules)], Rule{"", p.Limit, p.AtLimit})
	for i := range rules {
		if r := &rules[i]; r.Limit != Unlimited {
			r.Limit = min(r.Limit, MaxLimit)
		}
	}
	return rules
}

// With is the policy with another AtLimit of its own limit. Its rules keep
// theirs.
func (p Policy) With(a AtLimit) Policy {
	p.AtLimit = a
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

// of is the thing in which the rule compares a guard with others.
func (r Rule) of(g *Guard) string {
	switch r.Per {
	case "stream":
		return g.Stream
	case "device":
		return g.Device
	case "client":
		return g.Client.String()
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
