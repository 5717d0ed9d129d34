package guardtest

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/streamguard/streamguard/guard"
)

// What an account does is what a ledger does, one call at a time. Some clients do not
// hear their answers.
func TestAccountsAreThoseOfLedgers(t *testing.T) {
	r := newRules()
	long := guard.Policy{Limit: 3, Interval: 10 * time.Hour, TTL: 20 * time.Hour}
	var mu sync.Mutex
	var calls int
	h := History{Limit: long.Limit, Broken: func(int) int64 { return 0 },
		Verbs: []string{"acquire", "continue", "continue", "look", "resume", "refresh", "release", "revoke", "close", "close", "close", "undo", "undo", "list"}}
	h.Run(4, 20_000, func(_ int, c Call) (told Told, ok bool) {
		mu.Lock()
		defer mu.Unlock()
		calls++
		if calls%3 == 0 {
			r.now = r.now.Add(time.Second / 2)
		}
		claim := guard.Claim{User: c.User, ID: c.ID()}
		ledger, v, found := r.of(c.User), guard.Verdict{}, false
		switch c.Verb {
		case "acquire":
			claim.Anew = true
			v = ledger.Acquire(r.now, claim, long)
		case "continue":
			claim.Named = true
			v = ledger.Acquire(r.now, claim, long)
		case "look":
			claim.Intent = guard.Look
			v = ledger.Acquire(r.now, claim, long)
		case "resume":
			claim.Intent = guard.Resume
			v = ledger.Acquire(r.now, claim, long)
		case "refresh":
			v = ledger.Refresh(r.now, c.ID(), long)
		case "release":
			found = ledger.Release(r.now, c.ID(), long)
		case "revoke":
			found = ledger.Revoke(r.now, c.ID(), long)
		case "close":
			found = ledger.CloseGuard(r.now, c.ID())
		case "undo":
			found = ledger.Undo(r.now, c.ID(), nil)
		case "list":
			v.Held = len(ledger.List(r.now))
		default:
			panic(fmt.Sprint("verb ", c.Verb))
		}
		told = c.Told(v)
		told.Found = found
		return told, calls%40 != 0
	})
	h.Check(t)
}
