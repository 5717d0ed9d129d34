package guard

import (
	"context"
	"time"
)

// Store is the shared truth about guards. Every implementation passes
// guardtest.Run, which holds it to this contract:
//
//   - Each call is atomic for its user: of any number of parallel claims for
//     free slots exactly as many are admitted as there are slots.
//   - Calls are idempotent by guard id. Repeating one whose answer was lost
//     changes nothing but the guard's times.
//   - The store's clock is the only clock.
//   - What one user can make a store hold is bounded (MaxLimit, MaxMarks, MaxInTheWay).
//   - An error means that the store could not answer, never that it refused.
//     The call may or may not have taken effect.
//
// A Store is safe for concurrent use.
type Store interface {
	// Acquire admits the playback or says why not. A guard that exists is
	// refreshed whatever the limit is by now: an admitted viewer stays admitted.
	// Where whoever asks has gone (Abandoned) before the claim is on its way, Play is
	// no more than Look.
	Acquire(ctx context.Context, c Claim, p Policy) (Verdict, error)

	// Refresh extends both times of a guard: Refreshed, Absent or Revoked. It
	// never creates one, so that it cannot undo a release it races.
	Refresh(ctx context.Context, user string, id ID, p Policy) (Verdict, error)

	// Release frees the slot at once and leaves a mark, for p.TTL or the guard's
	// own ttl if that is longer, that tells stragglers apart from a new start;
	// with a p.TTL of 0 it leaves none. It reports whether there was a guard.
	Release(ctx context.Context, user string, id ID, p Policy) (bool, error)

	// Revoke frees the slot and refuses the playback for p.TTL, or the guard's own
	// ttl if that is longer. It reports whether there was a guard; without one
	// there is nothing to revoke.
	Revoke(ctx context.Context, user string, id ID, p Policy) (bool, error)

	// CloseGuard says that the client has closed the connections on which a playback was
	// watched: its guard is closed from now on, and has its slot as long as it had before.
	// It reports whether it is; not where there is no such guard, or it was closed before,
	// also if it has been refreshed since; and where another node has made or refreshed it.
	// Who calls it knows that the guard is on no trial (Undo).
	CloseGuard(ctx context.Context, user string, id ID) (bool, error)

	// Undo takes back what a claim of media made, if nothing else was asked under
	// the guard: it is gone without a mark, and the playbacks it replaced may go on,
	// as far as there is room by then. It reports whether it did.
	Undo(ctx context.Context, user string, id ID, replaced []ID) (bool, error)

	// List returns the user's guards, whatever their state, oldest first; ForDisplay
	// perhaps as they were a moment ago.
	List(ctx context.Context, user string) ([]Guard, error)
}

type forDisplay struct{}

// ForDisplay returns a context with which List may ask a copy of the truth that
// is a moment old. Nothing may be decided by what it answers.
func ForDisplay(ctx context.Context) context.Context {
	return context.WithValue(ctx, forDisplay{}, true)
}

// IsForDisplay reports whether the context is one of ForDisplay.
func IsForDisplay(ctx context.Context) bool { return ctx.Value(forDisplay{}) != nil }

type asker struct{}

// Abandonable returns a context that outlives ctx, so that a call that is under way is
// answered. A store still sees (Abandoned) whether ctx is done when it begins one.
func Abandonable(ctx context.Context) context.Context {
	return context.WithValue(context.WithoutCancel(ctx), asker{}, ctx)
}

// Abandoned reports whether the context is done, or the one that it is an Abandonable of.
// Who has gone from one playback may have begun another since, on another connection:
// a claim that is sent so late would replace that.
func Abandoned(ctx context.Context) bool {
	by, ok := ctx.Value(asker{}).(context.Context)
	return ctx.Err() != nil || ok && Abandoned(by)
}

// Request is a claim with the policy it is judged by.
type Request struct {
	Claim  Claim
	Policy Policy
}

// Answer is what Acquire answers.
type Answer struct {
	Verdict Verdict
	Err     error
}

// Batcher is a Store that takes many claims in one round trip.
type Batcher interface {
	// AcquireAll is Acquire for each request; the answers are in the same order.
	AcquireAll(ctx context.Context, requests []Request) []Answer
}

// News is of one guard. It was ended, closed or doubted, or has answered a doubt, here or
// on another node. Or another node is about to close it.
type News struct {
	ID ID

	// ClosedIn is 0 for what has happened. Else the guard's client has left it, and it
	// is closed so much later unless something is asked for it meanwhile.
	ClosedIn time.Duration
}

// Watcher is a Store that has news of guards.
type Watcher interface {
	// Watch calls heard for each until the context is done. It outlives the
	// store's absence. It is a hint: calls may come late, twice or not at all.
	Watch(ctx context.Context, heard func(News))

	// Tell has the other nodes hear that a guard is about to be closed.
	Tell(ctx context.Context, about News) error
}

// Walker is a Store that can go through all users, in steps so small that the
// store goes on answering meanwhile.
type Walker interface {
	// Walk calls visit, never twice at once, with each user who holds guards,
	// and with these, oldest first. Who comes or goes meanwhile may be missed;
	// a store that reorganizes itself may show a user twice. What cannot be
	// read is passed over, and the error says so in the end.
	Walk(ctx context.Context, visit func(user string, guards []Guard)) error
}

// Prober is a Store on servers of its own.
type Prober interface {
	// Probe asks each of them whether it answers.
	Probe(ctx context.Context) []Server
}

// Server is how one of a store's servers does.
type Server struct {
	Name string // host:port, or what else it is known by
	Took time.Duration
	Err  error // why it does not answer; nil if it does
}
