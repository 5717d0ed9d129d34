package gate

import (
	"strings"
	"time"

	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/problem"
)

// Word is what the gate says of a request, in one word: for placeholders,
// metrics, access log and traces.
type Word string

// The words. One that ends a request is the code of its problem in lower case:
// missing_user, too_early and the like.
const (
	Known     Word = "known"     // its playback was admitted or refreshed lately; the store was not asked
	Admitted  Word = "admitted"  // its guard was made
	Refreshed Word = "refreshed" // its guard was refreshed
	Vacant    Word = "vacant"    // a manifest, for which a slot is free
	Released  Word = "released"  // it was under way when its playback was released
	Uncounted Word = "uncounted" // the user holds as many as are counted, and may have more
	Rejected  Word = "rejected"  // all slots are taken
	Revoked   Word = "revoked"   // its playback was revoked
	Replaced  Word = "replaced"  // another playback has taken its slot
	Taken     Word = "taken"     // the same of one that was closed or lapsed; only its event says so, its requests are replaced

	Redirected  Word = "redirected"  // a manifest, sent to the URL of its playback
	Listed      Word = "list"        // a playlist of titles, each of which is a playback of its own
	Passed      Word = "anonymous"   // of nobody, where nobody may watch
	Unavailable Word = "unavailable" // the store could not answer
	Gone        Word = "gone"        // the client, before there was an answer

	WouldReject  Word = "would_reject"  // it passes, because the gate only observes
	WouldReplace Word = "would_replace" // the same, of one that would have ended another
)

// Decision is what the gate thought of a request.
type Decision struct {
	Word Word
	ID   guard.ID // of the guard that it is about, or of the playback where there is none

	Held, Limit int // guards that the user holds, and may hold; or Unknown

	Refusal  *problem.Problem // what the request is refused with; nil if it passes
	Would    *problem.Problem // what it would have been refused with, had the gate not only observed
	Repeated bool             // the refusal was remembered, the store was not asked
	Again    bool             // the same client was refused the same stream within the last ttl
	Replaces bool             // another playback of the user has ended for it

	Redirects   bool // it is a manifest, to be sent to the URL of its playback
	Alternates  bool // clients have taken turns under its token: perhaps its URL was passed on
	SelfRefused bool // what stands in the way began a moment ago, perhaps on the same client
	StandsIn    bool // a manifest of whose media none come this way: it takes the slot itself

	Gone        error // the client has gone before there was a decision
	Unavailable error // why the store could not answer

	Asked      time.Duration // for how long the store was asked; 0 if it was not
	BrokenCMCD bool          // there is CMCD in the request that cannot be read
}

// Unknown is the number of guards where nobody has asked.
const Unknown = -1

// Problem is what the request is refused with, or would be; nil for neither.
func (d *Decision) Problem() *problem.Problem {
	if d.Refusal != nil {
		return d.Refusal
	}
	return d.Would
}

func wordOf(d *Decision) Word {
	if d.Refusal == nil {
		return ""
	}
	return Word(strings.ToLower(string(d.Refusal.ErrorCode)))
}
