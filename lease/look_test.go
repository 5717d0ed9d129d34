package lease

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/memstore"
)

// lookAt is a request for a manifest of a playback.
func lookAt(c guard.Claim) guard.Claim {
	c.Intent, c.Named = guard.Look, false
	return c
}

// The manifests of a start ask once, its media once more.
func TestAStartCostsTwoCalls(t *testing.T) {
	run(t, func(t *testing.T, s *counter, a, _ node) {
		first := lookAt(claim(1))
		first.Anew = true
		if v := a.check(guard.Vacant, first, policy); v.Repeated || v.Held != 0 {
			t.Errorf("%+v", v)
		}
		for range 3 {
			time.Sleep(500 * time.Millisecond)
			if v := a.check(guard.Vacant, lookAt(claim(1)), policy); !v.Repeated || v.Held != 0 || v.Limit != policy.Limit {
				t.Errorf("%+v", v)
			}
		}
		if guards, _ := s.List(t.Context(), "user"); len(guards) != 0 {
			t.Errorf("who looks holds %+v", guards)
		}
		a.check(guard.Admitted, claim(1), policy)
		for range 4 {
			a.check(guard.Known, claim(1), policy)
			a.check(guard.Known, lookAt(claim(1)), policy)
		}
		if n := s.acquires.Load(); n != 2 {
			t.Errorf("%d calls, want 2", n)
		}
	})
}

// A vacancy is told again for two seconds, to who would be judged alike, and not
// when its playback has had a guard since.
func TestAVacancyIsOfAllThatWasJudged(t *testing.T) {
	for name, change := range map[string]func(*counter, node, *guard.Claim, *guard.Policy){
		"nothing": func(*counter, node, *guard.Claim, *guard.Policy) {},
		"stream":  func(_ *counter, _ node, c *guard.Claim, _ *guard.Policy) { c.Stream = "another" },
		"client":  func(_ *counter, _ node, c *guard.Claim, _ *guard.Policy) { c.Client = 7 },
		"limit":   func(_ *counter, _ node, _ *guard.Claim, p *guard.Policy) { p.Limit++ },
		"anew":    func(_ *counter, _ node, c *guard.Claim, _ *guard.Policy) { c.Anew = true },
		"time":    func(*counter, node, *guard.Claim, *guard.Policy) { time.Sleep(denialTime) },
		"ending": func(_ *counter, b node, c *guard.Claim, p *guard.Policy) {
			b.check(guard.Admitted, claim(1), *p)
			b.Release(context.Background(), c.User, c.ID, *p)
		},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(t *testing.T, s *counter, a, b node) {
				c, p := lookAt(claim(1)), policy
				a.check(guard.Vacant, c, p)
				change(s, b, &c, &p)
				if v := a.check(guard.Vacant, c, p); v.Repeated != (name == "nothing") || v.Limit != p.Limit {
					t.Errorf("%+v", v)
				}
			})
		})
	}
}

// Until media have come it is known which stream they are for.
func TestMediaAreOfTheStreamThatWasLookedAt(t *testing.T) {
	run(t, func(t *testing.T, s *counter, a, _ node) {
		knows := func(want string) {
			t.Helper()
			if got, ok := a.LookedAt(claim(1).ID); got != want || ok != (want != "") {
				t.Errorf("looked at %q, want %q", got, want)
			}
		}
		knows("")
		a.check(guard.Vacant, lookAt(claim(1)), policy)
		knows("movie")
		other := lookAt(claim(1))
		other.Stream = "another"
		a.check(guard.Vacant, other, policy)
		time.Sleep(2 * denialTime)
		knows("another")
		_, trial, _ := a.Check(t.Context(), claim(1), policy)
		trial.End(false)
		knows("another") // the next media are its too
		a.check(guard.Admitted, claim(1), policy)
		knows("")
		a.check(guard.Vacant, lookAt(claim(2)), policy)
		time.Sleep(policy.TTL + 2*sweepEvery)
		if n := a.looks.Size(); n != 0 {
			t.Errorf("%d are remembered when all is over", n)
		}
	})
}

// undecided is a store that has a slot for who looks, and none for who takes.
type undecided struct{ *counter }

func (s undecided) Acquire(_ context.Context, c guard.Claim, p guard.Policy) (guard.Verdict, error) {
	if c.Intent == guard.Look {
		return guard.Verdict{Outcome: guard.Vacant, Limit: p.Limit}, nil
	}
	s.acquires.Add(1)
	return guard.Verdict{Outcome: guard.Rejected, Limit: p.Limit, FreeIn: time.Minute}, nil
}

// However many look and find room, who was refused is refused from memory.
func TestVacanciesEvictNoRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := undecided{&counter{Store: memstore.New()}}
		defer s.Store.Close()
		k := node{New(s, s.Store, nil), t}
		defer k.Close()
		const perMillisecond, refused, seconds = 33, 500, 4
		before, stream := heap(), strings.Repeat("s", guard.MaxLabel)
		for ms := range seconds * 1000 {
			for n := range perMillisecond {
				user := fmt.Sprint(ms, " ", n)
				v, _, err := k.Ask(t.Context(), guard.Claim{User: user, ID: guard.DeriveID(user, "", "1"), Stream: stream, Intent: guard.Look}, policy)
				if err != nil || v.Outcome != guard.Vacant {
					t.Fatal(v.Outcome, err)
				}
			}
			if ms%100 == 0 {
				for n := range refused {
					k.check(guard.Rejected, claim(n), policy)
				}
			}
			time.Sleep(time.Millisecond)
		}
		if n := s.acquires.Load(); n > refused*(seconds/2+1) {
			t.Errorf("%d refusals were asked for %d times in %d s, want once in 2 s each", refused, n, seconds)
		}
		if n := k.looks.Size(); n != maxLooks {
			t.Errorf("%d vacancies are remembered, want %d", n, maxLooks)
		}
		if each := (heap() - before) / maxLooks; each > 600 {
			t.Errorf("each takes %d bytes", each)
		} else {
			t.Logf("each takes %d bytes, with a stream of %d; %d without what it refers to", each, len(stream), unsafe.Sizeof(look{}))
		}
	})
}
