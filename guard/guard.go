// Package guard is the domain: who may watch how many videos at once.
//
// A guard is a lease on one of a user's slots, held by one playback. Stores
// keep the guards, and a Verdict says whether the playback may go on.
package guard

import "time"

// Guard is the record of one playback of one user.
type Guard struct {
	ID     ID
	User   string
	Stream string // what is watched; at most MaxLabel bytes
	Device string // what it is watched on, "" where that is not known; at most MaxLabel bytes
	Labels Labels // what else it goes by, for rules; at most MaxLabels bytes

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

	// Alone is for how long a playback that resumes has been its node's own grant,
	// while the store could not answer: a release from before did not end it. 0
	// where the store granted it.
	Alone time.Duration
}

// Intent is what the request that makes a claim does with its playback.
type Intent uint8

const (
	// Start begins a playback or carries it on: a manifest, or an explicit call.
	Start Intent = iota
	// Continue carries it on: a segment. It differs from Start for the requests
	// that were under way when their playback was released: within Settle they
	// pass without taking the slot again.
	Continue
	// Look refreshes the guard if it exists and otherwise only says whether a
	// slot is free, having made one free if the policy replaces guards: should
	// another playback take it, Continue within Settle is Start. Players may open
	// a manifest under several ids and play one.
	Look
	// Share is Continue for a request that has lost its id: any guard of the
	// user on this stream and device serves, or one is made for the playback
	// that a Look within Settle was about.
	Share
	// Resume is Continue for a playback that was admitted before: should its
	// guard be lost, it comes back, limit or no limit. One that was released
	// since, or revoked, stays gone.
	Resume
)

// Starts reports whether a claim may replace guards.
func (i Intent) Starts() bool { return i == Start || i == Look }

// Settle is how long after its release a playback's stragglers may arrive.
const Settle = 5 * time.Second

// Policy is the plan a claim is judged by.
type Policy struct {
	Limit    int           // guards a user may hold
	AtLimit  AtLimit       // what becomes of one more
	Rules    []Rule        // further limits: all must allow
	Interval time.Duration // a guard is active this long after its last refresh
	TTL      time.Duration // and exists this long; longer than Interval

	// Observe admits everybody up to MaxLimit and replaces nobody, whatever the
	// limits say.
	Observe bool

	// ReclaimLapsed lets a new playback take the slot of the guard that lapsed
	// first. The default keeps every slot until TTL: a hidden browser tab is
	// silent for a minute, and its viewer is still there.
	ReclaimLapsed bool

	// CountLocally lets a node count by itself while the store cannot answer.
	// It is not the store's concern.
	CountLocally bool
}

// Defaults of a Policy.
const (
	DefaultLimit    = 3
	DefaultInterval = 60 * time.Second
	DefaultTTL      = 90 * time.Second
)

// Bounds on what one user can make a store hold.
const (
	MaxLimit = 1000 // guards under one user
	MaxMarks = 32   // released and revoked playbacks remembered under one user
	MaxUser  = 256  // bytes in a user
	MaxLabel = 255  // bytes in a stream or a device

	MaxLabels = 1024 // bytes in a guard's Labels
)

// Outcome is the word for a verdict.
type Outcome uint8

const (
	Admitted  Outcome = iota + 1 // the guard was created
	Refreshed                    // the guard existed; both its times moved on
	Vacant                       // Look: no guard, but a slot is free for one
	Released                     // a straggler of a playback released within Settle; it may pass
	Rejected                     // all slots are taken
	Revoked                      // the playback was revoked; carrying on does not bring it back
	Absent                       // Refresh: there is no such guard
	Known                        // admitted or refreshed lately; the store was not asked
)

func (o Outcome) String() string {
	return [...]string{"unknown", "admitted", "refreshed", "vacant", "released", "rejected", "revoked", "absent", "known"}[o]
}

// Pass reports whether the request may go on.
func (o Outcome) Pass() bool { return o >= Admitted && o <= Released || o == Known }

// Verdict is the answer to a claim.
type Verdict struct {
	Outcome Outcome
	Guard   Guard // as it now is, when Admitted or Refreshed
	Held    int   // guards the user holds after the call
	Limit   int   // as the policy had it; 0 from Refresh

	// Rejected: the rule that refuses (the limit is one with Per ""), the guards
	// in its way, oldest first, and how long until the first of them frees its
	// slot if nobody refreshes it.
	// Revoked: how long the revocation still stands.
	Rule     Rule
	InTheWay []Guard
	FreeIn   time.Duration
	Repeated bool // the refusal was remembered, the store was not asked

	Replaced []ID // guards revoked to make room
}
