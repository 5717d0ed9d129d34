package guard

import "context"

// Keeper is what handlers ask about a claim. It stands between them and the
// store.
type Keeper struct {
	// Store is the shared truth.
	Store Store
	// Local counts on this node alone while Store cannot answer; nil: nobody does.
	Local Store
}

// Acquire is Store.Acquire, answered by Local while Store cannot.
func (k Keeper) Acquire(ctx context.Context, c Claim, p Policy) (Verdict, error) {
	v, err := k.Store.Acquire(ctx, c, p)
	if err != nil && k.Local != nil && ctx.Err() == nil {
		return k.Local.Acquire(ctx, c, p)
	}
	return v, err
}
