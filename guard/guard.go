// Package guard is the domain: who may watch how many videos at once.
//
// A guard is a lease on one of a user's slots, held by one playback. Stores
// keep the guards, and a Verdict says whether the playback may go on.
package guard

import (
	"context"
	"fmt"
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
	Client Client // what started it

	// The store's clock, in milliseconds. The guard is active until ExpiresAt. Lapsed or
	// closed it still has its slot, and can be refreshed, until RemovedAt.
	CreatedAt, ExpiresAt, RemovedAt time.Time
	Closed                          bool // its client has closed its connections: at ExpiresAt
	Lapsed                          bool // of a guard that a store shows: nobody had refreshed it until then
}

// Client is a hash of a client's address and program, 0 where they are not known.
// It tells whether two playbacks may be one viewer's. Two equal clients behind one
// address have the same, so that it is never part of who somebody is.
type Client uint32

// NewClient returns the Client of an address and a program.
func NewClient[A string | []byte](address A, program string) Client {
	h := hash(address)*31 ^ hash(program)
	return Client(max(uint32(h^h>>32), 1))
}

// String returns eight hexadecimal digits, "" of what is not known.
func (c Client) String() string {
	if c == 0 {
		return ""
	}
	return fmt.Sprintf("%08x", uint32(c))
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
	Client         Client // written on a guard that is made

	Intent Intent

	// Named says that these are media under their own name, Nameless that the request
	// has lost every name: it speaks for the user's guards on this stream and device,
	// where what is not known matches anything. Where there is none a guard is made;
	// of guards made so each client has its own. Neither is an explicit call, or a
	// manifest with a name.
	Named, Nameless bool
	// For is the guard that a Nameless playback was served by before, if any.
	For ID
	// Path is the guard that a Nameless request is served by if its path is that of a long
	// answer: one without an end. Such a guard is its path's alone.
	Path ID
	// Long says that the answer to a request without a name is a long one: its guard, which
	// is For until then, is ID from then on. Short says that it was none after all: the
	// guard is its client's again, whatever the path.
	Long, Short bool
	// Anew says that the playback starts anew, from its first request: it is no
	// straggler of the time before its release, and a replacement no longer stops it.
	Anew bool
	// Reloads says that a claim Anew may also carry on: a live manifest that is asked
	// for again. It leaves alone a replacement that has refused somebody watching.
	Reloads bool
	// Keeps says that a guard with a stream keeps it.
	Keeps bool

	// Patience is how long a guard must have been doubted before a start may take
	// its slot; with 0 nothing is doubted. Waited says that this start has waited:
	// it doubts nothing new.
	Patience time.Duration
	Waited   bool

	// Alone is how long ago a node admitted this playback by itself, because the
	// store could not answer; 0 if the store admitted it. A playback that resumes
	// was not ended by a release that is older than that.
	Alone time.Duration
}

// writeOn changes a guard to what the claim says.
func (c *Claim) writeOn(g *Guard) {
	g.User = written(g.User, c.User)
	if !c.Keeps || g.Stream == "" {
		g.Stream = written(g.Stream, c.Stream)
	}
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
	// Play begins a playback or carries it on: media, or an explicit call. Requests
	// that were under way when their playback was released are an exception: for a
	// moment, Settle at most, they pass without taking the slot again.
	Play Intent = iota
	// Look is for a manifest, which may never be played. It refreshes the guard if
	// there is one. Otherwise it says whether a slot is free, or would be if
	// another guard went, and takes nothing.
	Look
	// Resume is Play for a playback that was admitted before: should its
	// guard be lost, it comes back, limit or no limit. A playback that was
	// ended since stays gone, and where the user has so many of
	// those that some were forgotten, Resume is no more than Play.
	Resume
)

// In is the intent of a claim that a store takes now, with this context.
func (i Intent) In(ctx context.Context) Intent {
	if i == Play && Abandoned(ctx) {
		return Look
	}
	return i
}

// Settle is how long after the release of a playback its last requests may
// arrive. They pass for as long as the playback had its guard, if that is
// shorter; and not at all if it had come back within ttl of another release.
var Settle = Paced(5 * time.Second)

// MaxGraces is how many releases of a user within ttl have all of Settle. After so
// many, stragglers pass for as long as Watched only: who starts, stops and plays on
// in turn would watch more than he may.
const MaxGraces = 3

// Watched is how long after its replacement a playback asks only because it has
// not heard of it. Whoever asks later is watched, and its viewer thrown out.
var Watched = Paced(time.Second)

// MaxReturns is how often playbacks of a stream that others have thrown out may
// throw those out in turn.
const MaxReturns = 2

// Outcome is the word for a verdict.
type Outcome uint8

const (
	Admitted  Outcome = iota + 1 // the guard was created
	Refreshed                    // the guard existed; both its times moved on
	Vacant                       // Look: no guard, but there is a slot for one
	Released                     // a request from before the playback's release; it may pass
	Rejected                     // all slots are taken
	Revoked                      // the playback was revoked; carrying on does not bring it back
	Absent                       // Refresh: there is no such guard
	Known                        // admitted or refreshed lately; the store was not asked
	Uncounted                    // the user holds as many guards as a store keeps of one: it passes, and nothing is kept
	Replaced                     // another playback has taken the slot; starting anew brings it back, or room where it was closed or lapsed
	Doubted                      // all slots are taken, but one perhaps by nobody: wait and ask again
)

func (o Outcome) String() string {
	return [...]string{"unknown", "admitted", "refreshed", "vacant", "released", "rejected", "revoked", "absent", "known", "uncounted", "replaced", "doubted"}[o]
}

// Pass reports whether the request may go on.
func (o Outcome) Pass() bool {
	switch o {
	case Admitted, Refreshed, Vacant, Released, Known, Uncounted:
		return true
	}
	return false
}

// Ended reports whether the playback was ended: requests that carry it on are refused.
func (o Outcome) Ended() bool { return o == Revoked || o == Replaced }

// Verdict is the answer to a claim.
type Verdict struct {
	Outcome Outcome
	Guard   Guard // as it now is, when Admitted or Refreshed
	Held    int   // guards the user holds after the call
	Limit   int   // as the policy had it; 0 from Refresh

	// Rejected and Doubted: the rule that refuses (the limit is one with Per ""),
	// how many guards are in its way, the oldest MaxInTheWay of them, oldest first,
	// and how long until there is room if nobody refreshes any of them.
	// Admitted and Refreshed: how long the guard has its slot if nobody refreshes it.
	// Revoked and Replaced: how long that still stands.
	// Doubted: how long to wait before the claim is made again, with Waited.
	Rule     Rule
	Blocking int
	InTheWay []Guard
	FreeIn   time.Duration
	Repeated bool // the refusal was remembered, the store was not asked
	Lately   bool // Rejected: the rule would replace, but playbacks throw each other out too often

	Replaced []ID // guards that were ended to make room
	Taken    int  // how many of those, the first, were closed or lapsed: nobody was watching
	Doubted  []ID // guards that were not doubted before
	Answered bool // Refreshed: the guard had been doubted
}
