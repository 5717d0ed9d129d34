package guardtest

import (
	"slices"
	"time"

	"github.com/streamguard/streamguard/guard"
)

const patience = 10 * time.Second

// patient is a claim of a start that can wait.
func patient(c guard.Claim) guard.Claim {
	c.Patience = patience
	return c
}

// waited is a claim of a start that has.
func waited(c guard.Claim) guard.Claim {
	c = patient(c)
	c.Waited = true
	return c
}

// doubts expects a start to have to wait, and to doubt these anew.
func (s *suite) doubts(c guard.Claim, p guard.Policy, wait time.Duration, doubted ...int) guard.Verdict {
	s.Helper()
	v := s.acquire(guard.Doubted, c, p)
	if v.FreeIn != wait || !slices.Equal(v.Doubted, ids(doubted)) || v.Outcome.Pass() || len(v.InTheWay) == 0 || v.Blocking < len(doubted) {
		s.Fatalf("verdict %+v, want a wait of %v for %v", v, wait, ids(doubted))
	}
	return v
}

// answers expects that a doubted guard is alive.
func (s *suite) answers(want bool, v guard.Verdict) {
	s.Helper()
	if v.Answered != want {
		s.Errorf("answered %v, want %v: %+v", v.Answered, want, v)
	}
}

var one = guard.Policy{Limit: 1, Interval: policy.Interval, TTL: policy.TTL}

// A page is loaded again: what it was itself is over after the wait.
func (s *suite) doubtInVainTakesTheSlot() {
	s.acquire(guard.Admitted, named(by(7, claim(1))), one)
	s.Advance(time.Minute)
	again := by(7, claim(2))
	s.doubts(with(patient(anew(again)), guard.Look), one, patience, 1)
	s.holds(1)
	s.Advance(4 * time.Second)
	s.doubts(with(patient(again), guard.Look), one, patience-4*time.Second)
	s.Advance(patience - 4*time.Second - time.Millisecond)
	s.doubts(with(waited(again), guard.Look), one, time.Millisecond)
	s.Advance(time.Millisecond)
	s.replaces(guard.Vacant, with(waited(again), guard.Look), one)
	s.holds(1)
	s.replaces(guard.Admitted, waited(named(again)), one, 1)
	s.holds(2)
	// Should the other ask after all, it is told.
	s.acquire(guard.Replaced, named(by(7, claim(1))), one)
	s.refresh(guard.Replaced, 1)
	s.acquire(guard.Replaced, with(by(7, claim(1)), guard.Resume), one)
}

// Somebody is watching: any request under its name says so, and the start is refused.
func (s *suite) doubtThatIsAnsweredTakesNothing() {
	s.acquire(guard.Admitted, by(7, claim(1)), one)
	second := by(7, claim(2))
	for _, life := range []func() guard.Verdict{
		func() guard.Verdict { return s.acquire(guard.Refreshed, by(7, claim(1)), one) },
		func() guard.Verdict { return s.acquire(guard.Refreshed, with(by(9, claim(1)), guard.Look), one) },
		func() guard.Verdict { return s.acquire(guard.Refreshed, with(claim(1), guard.Resume), one) },
		func() guard.Verdict { return s.acquire(guard.Refreshed, nameless(claim(50)), one) },
		func() guard.Verdict { return s.acquire(guard.Refreshed, nameless(on(50, "", "", "")), one) },
		func() guard.Verdict { return s.refresh(guard.Refreshed, 1) },
		func() guard.Verdict { return s.acquire(guard.Refreshed, named(by(7, claim(1))), one) },
	} {
		s.doubts(patient(second), one, patience, 1)
		s.Advance(patience - time.Millisecond)
		s.answers(true, life())
		s.answers(false, s.refresh(guard.Refreshed, 1))
		s.Advance(time.Millisecond)
		if v := s.acquire(guard.Rejected, waited(second), one); len(v.Doubted) > 0 || !slices.Equal(idsOf(v.InTheWay), ids([]int{1})) {
			s.Errorf("verdict %+v", v)
		}
		s.Advance(time.Second)
	}
	s.holds(1)
	// What names itself is not kept by what does not.
	s.doubts(patient(second), one, patience, 1)
	s.Advance(patience)
	s.answers(false, s.acquire(guard.Refreshed, nameless(claim(50)), one))
	s.replaces(guard.Admitted, waited(second), one, 1)
}

func (s *suite) onlyTheSameClientAndStreamAreDoubted() {
	s.acquire(guard.Admitted, by(7, claim(1)), one)
	for _, c := range []guard.Claim{
		by(8, claim(2)), claim(2), by(7, on(2, "other", "tv", "")), by(7, on(2, "", "tv", "")), by(7, on(2, "movie", "phone", "")),
		waited(by(7, claim(2))),
	} {
		v := s.acquire(guard.Rejected, c, one)
		if c.Patience = patience; v.Doubted != nil {
			s.Errorf("doubts %v", v.Doubted)
		}
		s.acquire(guard.Rejected, c, one)
	}
	s.acquire(guard.Rejected, by(7, claim(2)), one) // which has no patience
	s.Advance(patience)
	s.acquire(guard.Rejected, waited(by(7, claim(2))), one)
	// Neither is one taken by another client, or on another stream.
	s.doubts(patient(by(7, claim(2))), one, patience, 1)
	s.Advance(patience)
	s.acquire(guard.Rejected, waited(by(8, claim(3))), one)
	s.acquire(guard.Rejected, waited(by(7, on(3, "other", "tv", ""))), one)
	s.acquire(guard.Rejected, waited(by(7, on(3, "movie", "phone", ""))), one)
	s.acquire(guard.Rejected, by(7, claim(2)), one)
	s.holds(1)
	// A device that is not known may be any.
	s.replaces(guard.Admitted, waited(by(7, on(3, "movie", "", ""))), one, 1)
	s.doubts(patient(anew(by(7, claim(1)))), one, patience, 3)
	s.Advance(patience)
	s.replaces(guard.Admitted, waited(anew(by(7, claim(1)))), one, 3)
	// A guard of whom nothing is known is like no other.
	s.release(true, 1)
	for _, client := range []guard.Client{0, 7} {
		s.acquire(guard.Admitted, anew(by(client, on(1, "", "", ""))), one)
		s.acquire(guard.Rejected, patient(by(client, on(2, "", "", ""))), one)
		s.release(true, 1)
		s.acquire(guard.Admitted, anew(by(0, claim(1))), one)
		s.acquire(guard.Rejected, patient(by(client, claim(2))), one)
		s.release(true, 1)
	}
	s.Advance(policy.TTL)
	none := one
	none.Limit = 0
	s.acquire(guard.Rejected, patient(by(7, claim(2))), none)
}

func (s *suite) whereThereIsRoomNobodyIsDoubted() {
	for n := range 3 {
		if v := s.acquire(guard.Admitted, patient(by(7, claim(n))), policy); v.Doubted != nil {
			s.Errorf("verdict %+v", v)
		}
	}
	// Nor where the rule throws out.
	p := policy
	p.AtLimit = guard.ReplaceOldest
	s.replaces(guard.Admitted, patient(by(7, claim(3))), p, 0)
	for n := 1; n < 4; n++ {
		s.answers(false, s.refresh(guard.Refreshed, n))
	}
}

func (s *suite) severalAreDoubtedAtOnce() {
	for n := range 3 {
		s.acquire(guard.Admitted, by(7, claim(n)), policy)
		s.Advance(time.Second)
	}
	s.doubts(patient(by(7, claim(3))), policy, patience, 0, 1, 2)
	s.Advance(2 * time.Second)
	s.answers(true, s.refresh(guard.Refreshed, 0))
	s.answers(true, s.refresh(guard.Refreshed, 2))
	// Another start doubts again what has answered, and waits for the first of them.
	s.doubts(patient(by(7, claim(4))), policy, patience-2*time.Second, 0, 2)
	s.Advance(patience - 2*time.Second)
	s.replaces(guard.Admitted, waited(by(7, claim(3))), policy, 1)
	s.holds(0, 2, 3)
	s.doubts(waited(by(7, claim(4))), policy, 2*time.Second)
	s.answers(true, s.refresh(guard.Refreshed, 0))
	s.Advance(2 * time.Second)
	s.replaces(guard.Admitted, waited(by(7, claim(4))), policy, 2)
	s.holds(0, 3, 4)
}

// Where more would have to go than may be over, waiting is in vain.
func (s *suite) nobodyWaitsInVain() {
	two := policy
	two.Limit = 2
	s.acquire(guard.Admitted, by(7, claim(0)), policy)
	s.acquire(guard.Admitted, by(8, claim(1)), policy)
	s.acquire(guard.Admitted, by(8, claim(2)), policy)
	if v := s.acquire(guard.Rejected, patient(by(7, claim(3))), two); v.Doubted != nil {
		s.Errorf("verdict %+v", v)
	}
	s.answers(false, s.refresh(guard.Refreshed, 0))
	s.doubts(patient(by(8, claim(3))), policy, patience, 1, 2)
	s.Advance(time.Second)
	s.answers(true, s.refresh(guard.Refreshed, 2))
	s.doubts(patient(by(8, claim(3))), two, patience, 2)
	s.Advance(patience - time.Second)
	s.doubts(waited(by(8, claim(3))), two, time.Second)
	s.Advance(time.Second)
	s.replaces(guard.Admitted, waited(by(8, claim(3))), two, 1, 2)
}

// The rule that refuses says who is in the way.
func (s *suite) aRuleDoubtsWhatItCounts() {
	p := policy
	p.Rules = []guard.Rule{{Per: "device", Limit: 1}}
	s.acquire(guard.Admitted, by(7, on(1, "film", "tv", "")), p)
	s.acquire(guard.Admitted, by(7, on(2, "film", "phone", "")), p)
	v := s.doubts(patient(by(7, on(3, "film", "tv", ""))), p, patience, 1)
	if v.Rule.Per != "device" || v.Held != 2 {
		s.Errorf("verdict %+v", v)
	}
	s.Advance(patience)
	s.replaces(guard.Admitted, waited(by(7, on(3, "film", "tv", ""))), p, 1)
	// A move is a start.
	p.Rules[0].Per = "stream"
	s.acquire(guard.Admitted, by(7, on(4, "other", "", "")), p)
	s.doubts(patient(on(4, "film", "", "")), p, patience, 2, 3)
	p.Rules[0].Limit = 2
	s.Advance(patience)
	s.replaces(guard.Refreshed, waited(on(4, "film", "", "")), p, 2)
	s.holds(3, 4)
}

func (s *suite) aDoubtedGuardMayBeReleased() {
	s.acquire(guard.Admitted, by(7, claim(1)), one)
	s.Advance(time.Minute)
	s.doubts(patient(by(7, claim(2))), one, patience, 1)
	s.release(true, 1)
	s.acquire(guard.Released, by(7, claim(1)), one)
	s.replaces(guard.Admitted, waited(by(7, claim(2))), one)
	// The doubt went with it.
	s.release(true, 2)
	s.acquire(guard.Admitted, anew(by(7, claim(1))), one)
	s.Advance(patience)
	s.acquire(guard.Rejected, waited(by(7, claim(2))), one)
	s.answers(false, s.refresh(guard.Refreshed, 1))
}

// Who has not asked since an earlier doubt is over without another wait, and at once
// by a longer patience only.
func (s *suite) aDoubtOutlivesWhoDoubted() {
	s.acquire(guard.Admitted, by(7, claim(1)), one)
	s.doubts(patient(by(7, claim(2))), one, patience, 1)
	s.Advance(15 * time.Second)
	longer := by(7, claim(3))
	longer.Patience = 20 * time.Second
	s.doubts(longer, one, 5*time.Second)
	s.replaces(guard.Admitted, patient(by(7, claim(3))), one, 1)
}

// player is one of equal clients of one film: it asks every six seconds, and may be
// closed without a word.
type player struct {
	id             int
	begins, closes int // seconds
	asks           int // when next
	playing        bool
	refused        bool
	playedAt       int
}

// play has players of one client and film play against a limit, second by second,
// and returns what any of those who play was refused.
func (s *suite) play(p guard.Policy, seconds int, players ...*player) {
	s.Helper()
	for _, r := range players {
		r.asks = r.begins
	}
	for second := range seconds {
		for _, r := range players {
			if r.refused || second != r.asks || r.closes > 0 && second >= r.closes {
				continue
			}
			c := patient(named(by(7, claim(r.id))))
			c.Waited = second > r.begins
			if !r.playing {
				look := with(anew(c), guard.Look)
				v, err := s.Store.Acquire(s.Context(), look, p)
				switch {
				case err != nil:
					s.Fatal(err)
				case v.Outcome == guard.Doubted:
					r.asks += max(1, int(v.FreeIn/time.Second))
					continue
				case v.Outcome == guard.Rejected:
					r.refused = true
					continue
				}
			}
			v, err := s.Store.Acquire(s.Context(), c, p)
			if err != nil {
				s.Fatal(err)
			}
			if !v.Outcome.Pass() {
				s.Errorf("player %d, second %d: %v", r.id, second, v.Outcome)
			}
			if !r.playing {
				r.playing, r.playedAt = true, second
			}
			r.asks += 6
		}
		if guards, _ := s.Store.List(s.Context(), "user"); len(guards) > p.Limit {
			s.Fatalf("%d guards", len(guards))
		}
		s.Advance(time.Second)
	}
}

func (s *suite) twinsCostNobodyHisFilm() {
	first, second := &player{id: 1}, &player{id: 2, begins: 35}
	s.play(one, 60, first, second)
	if !first.playing || !second.refused {
		s.Errorf("%+v, %+v", first, second)
	}
}

func (s *suite) fiveEqualClientsOfThree() {
	var players []*player
	for n := range 5 {
		players = append(players, &player{id: n, begins: 8 * n})
	}
	s.play(policy, 120, players...)
	for n, r := range players {
		if r.playing != (n < 3) || r.refused != (n >= 3) {
			s.Errorf("%d: %+v", n, r)
		}
	}
}

// A page is loaded again five times, after a film or in the middle of waiting.
func (s *suite) pagesThatAreLoadedAgainPlay() {
	for round, gap := range []int{40, 3} {
		var players []*player
		for n := range 6 {
			players = append(players, &player{id: 10*round + n, begins: gap * n, closes: gap * (n + 1)})
		}
		last := players[5]
		last.closes = 0
		s.play(one, 6*gap+60, players...)
		for _, r := range players {
			if r.refused || r.playing && r.playedAt > r.begins+11 {
				s.Errorf("every %d s: %+v", gap, r)
			}
		}
		if !last.playing {
			s.Errorf("every %d s: the last does not play", gap)
		}
		s.Advance(2 * policy.TTL)
	}
}
