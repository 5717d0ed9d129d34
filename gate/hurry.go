package gate

import (
	"context"

	"github.com/streamguard/streamguard/guard"
)

// Hurry closes at once the guards of what a claim's client has left a moment ago,
// and reports whether there were any. A box that changes channels asks for the next
// one before it is certain that the last is over.
type Hurry func(ctx context.Context, c *guard.Claim) bool

// asking is ask for a start that finds no room: it asks once more if there may be
// some now.
func (h Hurry) asking(ctx context.Context, ask func(guard.Claim) (guard.Verdict, error)) func(guard.Claim) (guard.Verdict, error) {
	if h == nil {
		return ask
	}
	hurried := false
	return func(c guard.Claim) (guard.Verdict, error) {
		v, err := ask(c)
		if err != nil || hurried || v.Outcome != guard.Rejected && v.Outcome != guard.Doubted {
			return v, err
		}
		hurried = true
		if !h(ctx, &c) {
			return v, nil
		}
		return ask(c)
	}
}
