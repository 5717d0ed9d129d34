package lease

import "hash/maphash"

const (
	turns   = 1024 // users share one if their hashes agree
	atATime = 16   // calls that begin playbacks of those who share a turn
)

// turn waits until few enough calls of a user are under way, and returns what
// ends the call. A user with very many guards makes each call a long one: the
// calls of others are to come in between.
func (k *Keeper) turn(user string) (end func()) {
	place := k.turns[maphash.String(k.seed, user)%turns]
	place <- struct{}{}
	return func() { <-place }
}
