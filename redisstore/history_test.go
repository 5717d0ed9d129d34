package redisstore

import (
	"context"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/redisstore/redistest"
)

var operations = flag.Int("operations", 4000, "calls in the histories of TestHistoriesAreThoseOfOneLedger")

// call is an input of a history.
type call struct {
	user string
	verb string // acquire, refresh, release or revoke
	id   int
}

// said is its output; where it is not ok no answer came, and it may have
// happened or not.
type said struct {
	ok      bool
	outcome guard.Outcome
	found   bool
	held    int
}

// account is what a user has: few enough milliseconds pass that no time matters.
type account struct {
	held, revoked []int
	outcome       said
}

func (a account) does(c call) account {
	a.held, a.revoked = slices.Clone(a.held), slices.Clone(a.revoked)
	at := slices.Index(a.held, c.id)
	a.outcome = said{ok: true}
	switch c.verb {
	case "acquire", "refresh":
		switch {
		case slices.Contains(a.revoked, c.id):
			a.outcome.outcome = guard.Revoked
		case at >= 0:
			a.outcome.outcome = guard.Refreshed
		case c.verb == "refresh":
			a.outcome.outcome = guard.Absent
		case len(a.held) >= policy.Limit:
			a.outcome.outcome = guard.Rejected
		default:
			a.held = append(a.held, c.id)
			a.outcome.outcome = guard.Admitted
		}
		a.outcome.held = len(a.held)
	default:
		if a.outcome.found = at >= 0; at >= 0 {
			a.held = slices.Delete(a.held, at, at+1)
			if c.verb == "revoke" {
				a.revoked = append(a.revoked, c.id)
			}
		}
	}
	return a
}

var model = porcupine.NondeterministicModel{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		users := make(map[string][]porcupine.Operation)
		for _, o := range history {
			user := o.Input.(call).user
			users[user] = append(users[user], o)
		}
		var parts [][]porcupine.Operation
		for _, part := range users {
			parts = append(parts, part)
		}
		return parts
	},
	Init: func() []any { return []any{account{}} },
	Step: func(state, input, output any) []any {
		before, c, s := state.(account), input.(call), output.(said)
		after := before.does(c)
		if !s.ok {
			return []any{before, after}
		}
		if s != after.outcome {
			return nil
		}
		return []any{after}
	},
	Equal: func(a, b any) bool {
		x, y := a.(account), b.(account)
		return slices.Equal(x.held, y.held) && slices.Equal(x.revoked, y.revoked)
	},
}

// Many clients call one Redis over lines that break in the middle of answers.
// What they were told is what one ledger would have told them, one at a time.
// It is checked round by round, for a history is kept in memory.
func TestHistoriesAreThoseOfOneLedger(t *testing.T) {
	const round = 20_000
	server := redistest.Start(t)
	var (
		stores [clients]*Store
		lines  [clients]*redistest.Line
	)
	for i := range clients {
		lines[i] = redistest.NewLine(t, server.Addr)
		lines[i].Set(redistest.Trouble{Breaks: 40})
		stores[i] = open(t, Options{Addresses: []string{lines[i].Addr}, Timeout: 2 * time.Second})
	}
	calls, uncertain := 0, 0
	for from := 0; from < *operations; from += round {
		var h history
		var wg sync.WaitGroup
		for client, s := range stores {
			rng := rand.New(rand.NewPCG(uint64(from), uint64(client)))
			wg.Go(func() {
				for n := range min(round, *operations-from) / clients {
					// A user has few calls, so that the check is quick.
					c := call{fmt.Sprint("user ", from, " ", n/12), []string{"acquire", "acquire", "refresh", "release", "revoke"}[rng.IntN(5)], rng.IntN(6)}
					h.do(s, client, lines[client], c)
				}
			})
		}
		wg.Wait()
		calls += h.calls
		uncertain += len(h.operations) - h.answered
		if result := porcupine.CheckOperationsTimeout(model.ToModel(), h.operations, time.Minute); result != porcupine.Ok {
			t.Fatalf("the history from %d on is %s", from, result)
		}
	}
	broken := int64(0)
	for _, l := range lines {
		broken += l.Broken.Load()
	}
	t.Logf("%d operations, %d that may have happened besides, %d lines broken", calls, uncertain, broken)
	if broken == 0 {
		t.Error("no line has broken")
	}
}

const clients = 8

// history is what all clients asked and were told.
type history struct {
	mu              sync.Mutex
	calls, answered int
	operations      []porcupine.Operation
}

var begun = time.Now()

func (h *history) do(s *Store, client int, line *redistest.Line, c call) {
	broken, start := line.Broken.Load(), int64(time.Since(begun))
	out := do(s, c)
	end := int64(time.Since(begun))
	h.mu.Lock()
	defer h.mu.Unlock()
	h.calls++
	besides := 0 // tries of the client that nobody saw the answer of
	switch {
	case !out.ok:
		besides, end = 2, math.MaxInt64
	case line.Broken.Load() != broken:
		besides = 1
	}
	if out.ok {
		h.answered++
		h.operations = append(h.operations, porcupine.Operation{ClientId: client, Input: c, Call: start, Output: out, Return: end})
	}
	for range besides {
		h.operations = append(h.operations, porcupine.Operation{ClientId: clients + client, Input: c, Call: start, Output: said{}, Return: end})
	}
}

func do(s *Store, c call) said {
	ctx, id := context.Background(), guard.DeriveID(c.user, "", fmt.Sprint(c.id))
	var (
		v     guard.Verdict
		found bool
		err   error
	)
	switch c.verb {
	case "acquire":
		v, err = s.Acquire(ctx, guard.Claim{User: c.user, ID: id}, policy)
	case "refresh":
		v, err = s.Refresh(ctx, c.user, id, policy)
	case "release":
		found, err = s.Release(ctx, c.user, id, policy)
	case "revoke":
		found, err = s.Revoke(ctx, c.user, id, policy)
	}
	if err != nil {
		return said{}
	}
	return said{true, v.Outcome, found, v.Held}
}
