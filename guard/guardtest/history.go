package guardtest

import (
	"fmt"
	"maps"
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/streamguard/streamguard/guard"
)

// History is what concurrent clients asked and were told. Its guards outlive it,
// so that no time matters.
type History struct {
	Limit int      // guards that a user may hold
	Round int      // tells its users from those of other histories on the same store
	Verbs []string // what clients ask, each as often as it stands here; by default those of the API
	// Broken counts how often a client's line broke so far. A call that saw it
	// break may have been made twice.
	Broken func(client int) int64

	mu         sync.Mutex
	begun      time.Time
	operations []porcupine.Operation
}

// Call is what a client asks.
type Call struct {
	User     string
	Verb     string // acquire (which starts anew), continue (named media), look, resume, refresh, release, revoke, close, undo or list
	Playback int
}

// ID is that of the call's guard.
func (c Call) ID() guard.ID { return guard.DeriveID(c.User, "", fmt.Sprint(c.Playback)) }

// Told is what it is told.
type Told struct {
	Outcome guard.Outcome // of a claim and of refresh
	Found   bool          // of release, revoke, close and undo
	Held    int           // of the others; Untold where it is not said
	Taken   uint          // a bit for each playback whose slot a claim took
}

// Told is what a verdict tells who made the call.
func (c Call) Told(v guard.Verdict) (told Told) {
	told.Outcome, told.Held = v.Outcome, v.Held
	for playback := range playbacks {
		c.Playback = playback
		if slices.Contains(v.Replaced, c.ID()) {
			told.Taken |= 1 << playback
		}
	}
	return told
}

const playbacks = 6 // of each user

// Untold is no number of guards.
const Untold = -1

// Run has clients make so many calls. Those that ask cannot answer may have
// happened or not, and the more of them a user has the longer the check takes:
// a client without an answer asks no more about that user.
func (h *History) Run(clients, calls int, ask func(client int, c Call) (told Told, ok bool)) {
	h.begun = time.Now()
	verbs := h.Verbs
	if verbs == nil {
		verbs = []string{"acquire", "acquire", "acquire", "refresh", "release", "revoke", "list"}
	}
	var all sync.WaitGroup
	for client := range clients {
		rng := rand.New(rand.NewPCG(uint64(h.Round), uint64(client)))
		all.Go(func() {
			const each = 12 // calls about a user: few, so that the check is quick
			for n := 0; n < calls/clients; n++ {
				verb := verbs[rng.IntN(len(verbs))]
				c := Call{fmt.Sprint("user ", h.Round, " ", n/each), verb, rng.IntN(playbacks)}
				broken, start := h.Broken(client), time.Since(h.begun)
				told, ok := ask(client, c)
				h.add(client, c, start, told, ok, h.Broken(client) != broken)
				if !ok {
					n += each - 1 - n%each
				}
			}
		})
	}
	all.Wait()
}

// perhaps is what a call was told that may have happened.
type perhaps struct{}

func (h *History) add(client int, c Call, start time.Duration, told Told, ok, broken bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	operation := porcupine.Operation{ClientId: client, Input: c, Call: int64(start), Output: told, Return: int64(time.Since(h.begun))}
	besides := 0 // tries of which nobody saw the answer
	if !ok {
		besides, operation.Return = 1, math.MaxInt64
	}
	if broken {
		besides++
	}
	if ok {
		h.operations = append(h.operations, operation)
	}
	operation.Output = perhaps{}
	for range besides {
		h.operations = append(h.operations, operation)
	}
}

// Check fails the test unless one ledger that does one thing at a time could
// have told the clients the same.
func (h *History) Check(t *testing.T) {
	t.Helper()
	unsure := 0
	for _, o := range h.operations {
		if o.Output == (perhaps{}) {
			unsure++
		}
	}
	t.Logf("%d operations, %d more may have happened", len(h.operations)-unsure, unsure)
	if unsure == 0 {
		t.Error("no line has broken")
	}
	if result := porcupine.CheckOperationsTimeout(h.model(), h.operations, 10*time.Minute); result != porcupine.Ok {
		t.Errorf("the history is %s", result)
	}
}

// account is what a user has: a bit for each playback.
type account struct {
	held, revoked, released uint
	returned                uint // held, and released before
	settling                uint // released, and had not been before: for a moment stragglers pass
	unproven                uint // held, and nothing was asked since the media that made it
	closed                  uint // held
	reopened                uint // held, and not to be closed
	taken                   uint // its slot, and it has not started again
	lost                    uint // its slot, at some time: it is not resumed
}

// step is what a call may be told, and what the user has then.
type step struct {
	account
	told Told
}

func (a account) does(c Call, limit int) []step {
	it := uint(1) << c.Playback
	is := func(those uint) bool { return those&it != 0 }
	var told Told
	switch c.Verb {
	case "release", "revoke":
		returned := a.returned
		if told.Found = is(a.held); told.Found {
			a = a.without(it)
			if c.Verb == "revoke" {
				a.revoked |= it
			} else {
				a.released |= it
				a.settling |= it &^ returned
			}
		}
		return []step{{a, told}}
	case "close":
		if told.Found = is(a.held &^ (a.closed | a.reopened)); told.Found {
			a.closed |= it
		}
		return []step{{a, told}}
	case "undo":
		if told.Found = is(a.unproven); told.Found {
			a.held &^= it
			a.closed &^= it
			a.unproven &^= it
			a.closed &^= it
			a.reopened &^= it
			a.released |= it & a.returned
			a.returned &^= it
		}
		return []step{{a, told}}
	case "list":
		return []step{{a, Told{Held: bits.OnesCount(a.held)}}}
	}
	var steps []step
	if c.Verb == "continue" && is(a.settling&^a.held) {
		steps = append(steps, step{a, Told{Outcome: guard.Released, Held: bits.OnesCount(a.held)}})
		a.settling &^= it // or that is over
	}
	if c.Verb == "acquire" {
		a.taken &^= it
	}
	free, resumes := a.rooms(limit), c.Verb == "resume" && !is(a.lost)
	switch {
	case is(a.revoked):
		told.Outcome = guard.Revoked
	case is(a.held):
		told.Outcome = guard.Refreshed
		a.unproven &^= it
		a.reopened |= it & a.closed
		a.closed &^= it
	case is(a.taken) && (c.Verb == "refresh" || free == nil):
		told.Outcome = guard.Replaced
	case c.Verb == "refresh":
		told.Outcome = guard.Absent
	case c.Verb == "resume" && is(a.released):
		told.Outcome = guard.Released
	case !resumes && free == nil:
		told.Outcome = guard.Rejected
	case c.Verb == "look":
		told.Outcome = guard.Vacant
	default:
		if resumes {
			free = []uint{0}
		}
		for _, those := range free {
			a := a.without(those)
			a.taken |= those
			a.lost |= those
			a.taken &^= it
			a.held |= it
			a.returned |= it & a.released
			a.released &^= it
			if c.Verb == "continue" {
				a.unproven |= it
			}
			steps = append(steps, step{a, Told{Outcome: guard.Admitted, Held: bits.OnesCount(a.held), Taken: those}})
		}
		return steps
	}
	told.Held = bits.OnesCount(a.held)
	return append(steps, step{a, told})
}

// without is the account when these playbacks have lost their guards, and all marks of
// before.
func (a account) without(those uint) account {
	for _, bits := range []*uint{
		&a.held, &a.released, &a.returned, &a.settling, &a.unproven, &a.closed, &a.reopened, &a.taken, &a.lost,
	} {
		*bits &^= those
	}
	return a
}

// rooms are the closed guards whose slots a start may take to have its own: each choice
// of so many as that needs. Which of them were closed first, a millisecond decides.
func (a account) rooms(limit int) (choices []uint) {
	excess := max(bits.OnesCount(a.held)-limit+1, 0)
	for those := range uint(1) << playbacks {
		if those&^a.closed == 0 && bits.OnesCount(those) == excess {
			choices = append(choices, those)
		}
	}
	return choices
}

func (h *History) model() porcupine.Model {
	model := porcupine.NondeterministicModel{
		Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
			users := make(map[string][]porcupine.Operation)
			for _, o := range history {
				user := o.Input.(Call).User
				users[user] = append(users[user], o)
			}
			return slices.Collect(maps.Values(users))
		},
		Init: func() []any { return []any{account{}} },
		Step: func(state, input, output any) []any {
			told, sure := output.(Told)
			var after []any
			for _, may := range state.(account).does(input.(Call), h.Limit) {
				if told.Held == Untold {
					may.told.Held = Untold
				}
				if !sure || told == may.told {
					after = append(after, may.account)
				}
			}
			if !sure { // perhaps it has not happened
				after = append(after, state)
			}
			return after
		},
	}
	return model.ToModel()
}
