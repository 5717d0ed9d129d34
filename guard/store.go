package guard

import "context"

// Store is the shared truth about guards. Every implementation passes
// guardtest.Run, which holds it to this contract:
//
//   - Each call is atomic for its user: of any number of parallel claims for
//     free slots exactly as many are admitted as there are slots.
//   - Calls are idempotent by guard id. Repeating one whose answer was lost
//     changes nothing but the guard's times.
//   - The store's clock is the only clock.
//   - What one user can make a store hold is bounded (MaxLimit, MaxMarks).
//   - An error means that the store could not answer, never that it refused.
//     The call may or may not have taken effect.
//
// A Store is safe for concurrent use.
type Store interface {
	// Acquire admits the playback or says why not. A guard that exists is
	// refreshed whatever the limit is by now: an admitted viewer stays admitted.
	Acquire(ctx context.Context, c Claim, p Policy) (Verdict, error)

	// Refresh extends both times of a guard: Refreshed, Absent or Revoked. It
	// never creates one, so that it cannot undo a release it races.
	Refresh(ctx context.Context, user string, id ID, p Policy) (Verdict, error)

	// Release frees the slot at once and leaves a mark for p.TTL that tells
	// stragglers apart from a new start. It reports whether there was a guard.
	Release(ctx context.Context, user string, id ID, p Policy) (bool, error)

	// Revoke frees the slot and refuses the playback for p.TTL. It reports
	// whether there was a guard; without one there is nothing to revoke.
	Revoke(ctx context.Context, user string, id ID, p Policy) (bool, error)

	// List returns the user's guards, active and lapsed, oldest first.
	List(ctx context.Context, user string) ([]Guard, error)
}
