package redisstore

import (
	"context"
	"flag"
	"testing"
	"time"

	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/guard/guardtest"
	"github.com/streamguard/streamguard/redisstore/redistest"
)

var operations = flag.Int("operations", 4000, "calls in the histories of TestHistoriesAreThoseOfOneLedger")

// Many clients call one Redis over lines that break in the middle of answers.
// What they were told is what one ledger would have told them, one at a time.
// It is checked round by round, for a history is kept in memory.
func TestHistoriesAreThoseOfOneLedger(t *testing.T) {
	const clients = 8
	server := redistest.Start(t)
	var stores [clients]*Store
	var lines [clients]*redistest.Line
	for i := range clients {
		lines[i] = redistest.NewLine(t, server.Addr)
		lines[i].Set(redistest.Trouble{Breaks: 40})
		stores[i] = open(t, Options{Addresses: []string{lines[i].Addr}, Timeout: 2 * time.Second})
	}
	broken := func(client int) int64 { return lines[client].Broken.Load() }
	const round = 20_000
	for n := 0; n*round < *operations && !t.Failed(); n++ {
		h := guardtest.History{Limit: policy.Limit, Round: n, Broken: broken,
			Verbs: []string{"acquire", "acquire", "continue", "continue", "look", "resume", "refresh", "release", "revoke", "close", "close", "undo", "list"}}
		h.Run(clients, min(round, *operations-n*round), func(client int, c guardtest.Call) (guardtest.Told, bool) {
			return ask(t.Context(), stores[client], c)
		})
		h.Check(t)
	}
}

// ask has a store do what the call says. It is not ok where no answer came.
func ask(ctx context.Context, s *Store, c guardtest.Call) (told guardtest.Told, ok bool) {
	var (
		v     guard.Verdict
		found bool
		held  []guard.Guard
		err   error
	)
	switch c.Verb {
	case "acquire", "continue", "look", "resume":
		intent := map[string]guard.Intent{"look": guard.Look, "resume": guard.Resume}[c.Verb]
		v, err = s.Acquire(ctx, guard.Claim{User: c.User, ID: c.ID(), Intent: intent, Anew: c.Verb == "acquire", Named: c.Verb == "continue"}, policy)
	case "refresh":
		v, err = s.Refresh(ctx, c.User, c.ID(), policy)
	case "release":
		found, err = s.Release(ctx, c.User, c.ID(), policy)
	case "revoke":
		found, err = s.Revoke(ctx, c.User, c.ID(), policy)
	case "close":
		found, err = s.CloseGuard(ctx, c.User, c.ID())
	case "undo":
		found, err = s.Undo(ctx, c.User, c.ID(), nil)
	case "list":
		held, err = s.List(ctx, c.User)
	}
	told = c.Told(v)
	told.Found, told.Held = found, max(v.Held, len(held))
	return told, err == nil
}
