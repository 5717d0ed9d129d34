// Package guard is the domain: who may watch how many videos at once.
//
// A guard is a lease on one of a user's slots, held by one playback. Stores
// keep the guards, and a Verdict says whether the playback may go on.
package guard

import (
	"strings"
	"time"
)

// Guard is the record of one playback of one user.
type Guard struct {
	ID     ID
	User   string
	Stream string // what is watched; at most MaxLabel bytes
	Device string // what it is watched on, "" where that is not known; at most MaxLabel bytes
	Labels Labels // what else rules go by; at most MaxLabels bytes

	// The store's clock, in milliseconds. The guard is active until ExpiresAt,
	// lapsed (still holding its slot, still refreshable) until RemovedAt.
	CreatedAt, ExpiresAt, RemovedAt time.Time
}

// Claim asks for one of a user's slots in the name of a playback.
type Claim struct {
	User string
	ID   ID

	// Stream, Device and each of the Labels are written on the guard; what is not
	// known here leaves it as it is.
	// Another stream under the same ID moves the guard: it never takes a second slot.
	Stream, Device string
	Labels         Labels

	Intent Intent

	// Alone is how long ago a node admitted this playback by itself, because the
	// store could not answer; 0 if the store admitted it. A playback that resumes
	// was not ended by a release that is older than that.
	Alone time.Duration
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

// Intent is what the request that makes a claim does with its playback.
type Intent uint8

const (
	// Start begins a playback or carries it on: a manifest, or an explicit call.
	Start Intent = iota
	// Continue carries it on: a segment. It differs from Start for the requests
	// that were under way when their playback was released: for a moment, Settle
	// at most, they pass without taking the slot again.
	Continue
	// Look is for a manifest that may never be played: players open one under
	// several ids and play one of them. It refreshes the guard if there is one.
	// Otherwise it creates none, and says whether a slot is free; where the policy
	// replaces guards, it frees one. If another playback takes that slot within
	// Settle, a Continue of this one may replace it, as a Start may.
	Look
	// Share is Continue for a request that has lost its id: any guard of the
	// user on this stream and device serves, or one is made for the playback
	// that a Look within Settle was about.
	Share
	// Resume is Continue for a playback that was admitted before: should its
	// guard be lost, it comes back, limit or no limit. A playback that was
	// released or revoked since stays gone, and where the user has so many of
	// those that some were forgotten, Resume is no more than Continue.
	Resume
)

// Starts reports whether a claim may replace guards.
func (i Intent) Starts() bool { return i == Start || i == Look }

// Settle is how long after the release of a playback its last requests may
// arrive. They pass for as long as the playback had its guard, if that is
// shorter; and not at all if it had come back within ttl of another release.
const Settle = 5 * time.Second

// Outcome is the word for a verdict.
type Outcome uint8

const (
	Admitted  Outcome = iota + 1 // the guard was created
	Refreshed                    // the guard existed; both its times moved on
	Vacant                       // Look: no guard, but a slot is free for one
	Released                     // a request from before the playback's release; it may pass
	Rejected                     // all slots are taken
	Revoked                      // the playback was revoked; carrying on does not bring it back
	Absent                       // Refresh: there is no such guard
	Known                        // admitted or refreshed lately; the store was not asked
	Uncounted                    // the user holds as many guards as a store keeps of one: it passes, and nothing is kept
)

func (o Outcome) String() string {
	return [...]string{"unknown", "admitted", "refreshed", "vacant", "released", "rejected", "revoked", "absent", "known", "uncounted"}[o]
}

// Pass reports whether the request may go on.
func (o Outcome) Pass() bool {
	switch o {
	case Admitted, Refreshed, Vacant, Released, Known, Uncounted:
		return true
	}
	return false
}

// Verdict is the answer to a claim.
type Verdict struct {
	Outcome Outcome
	Guard   Guard // as it now is, when Admitted or Refreshed
	Held    int   // guards the user holds after the call
	Limit   int   // as the policy had it; 0 from Refresh

	// Rejected: the rule that refuses (the limit is one with Per ""), how many
	// guards are in its way, the oldest MaxInTheWay of them, oldest first, and how
	// long until there is room if nobody refreshes any of them.
	// Revoked: how long the revocation still stands.
	Rule     Rule
	Blocking int
	InTheWay []Guard
	FreeIn   time.Duration
	Repeated bool // the refusal was remembered, the store was not asked

	Replaced []ID // guards revoked to make room
}
