package guardtest

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/streamguard/streamguard/guard"
)

// replacing is a policy of one slot, which the last to start has.
var replacing = guard.Policy{Limit: 1, AtLimit: guard.ReplaceOldest, Interval: policy.Interval, TTL: policy.TTL}

func (s *suite) lookReplacesNobody() {
	s.acquire(guard.Admitted, claim(1), replacing)
	s.replaces(guard.Vacant, with(anew(claim(2)), guard.Look), replacing)
	s.acquire(guard.Refreshed, claim(1), replacing)
	s.holds(1)
	s.replaces(guard.Admitted, named(claim(2)), replacing, 1)
	s.holds(2)
}

// Whoever asks has gone before the store was asked: that takes no slot, nor anybody's.
// Who has gone since is admitted.
func (s *suite) whoHasGoneTakesNothing() {
	ctx, leave := context.WithCancel(context.Background())
	acquire := func(want guard.Outcome, c guard.Claim) {
		s.Helper()
		v, err := s.Store.Acquire(guard.Abandonable(ctx), c, replacing)
		if err != nil || v.Outcome != want {
			s.Errorf("acquire: %v, %v, want %v", v.Outcome, err, want)
		}
	}
	acquire(guard.Admitted, named(claim(1)))
	leave()
	acquire(guard.Refreshed, named(claim(1)))
	for _, c := range []guard.Claim{named(claim(2)), nameless(on(3, "other", "tv", ""))} {
		acquire(guard.Vacant, c)
		s.holds(1)
	}
	s.release(true, 1)
	acquire(guard.Vacant, named(claim(2)))
	s.holds()
	acquire(guard.Admitted, with(claim(2), guard.Resume)) // nobody waits for that anyway
}

// A look moves its guard only where nobody is.
func (s *suite) lookThatMovesReplacesNobody() {
	p := policy
	p.Rules = []guard.Rule{{Per: "stream", Limit: 1, AtLimit: guard.ReplaceOldest}}
	s.acquire(guard.Admitted, on(1, "a", "", ""), p)
	s.acquire(guard.Admitted, on(2, "b", "", ""), p)
	s.Advance(time.Second)
	before := s.holds(1, 2)[0]
	s.replaces(guard.Refreshed, with(on(1, "b", "", ""), guard.Look), p)
	if g := s.holds(1, 2)[0]; g.Stream != "a" || !g.ExpiresAt.After(before.ExpiresAt) {
		s.Errorf("guard %+v", g)
	}
	s.replaces(guard.Refreshed, with(on(1, "c", "", ""), guard.Look), p)
	s.replaces(guard.Refreshed, on(1, "b", "", ""), p, 2)
	if g := s.holds(1)[0]; g.Stream != "b" {
		s.Errorf("guard %+v", g)
	}
}

func (s *suite) replacedPlaybackCannotCarryOn() {
	s.acquire(guard.Admitted, named(claim(1)), replacing)
	s.Advance(10 * time.Second)
	s.replaces(guard.Admitted, on(2, "other", "", ""), replacing, 1)
	s.Advance(10 * time.Second)
	for _, c := range []guard.Claim{claim(1), named(claim(1)), nameless(claim(1)), with(claim(1), guard.Look), with(claim(1), guard.Resume)} {
		v := s.acquire(guard.Replaced, c, replacing)
		if v.Outcome.Pass() || v.FreeIn != policy.TTL-10*time.Second || v.Held != 1 {
			s.Errorf("verdict %+v", v)
		}
	}
	s.refresh(guard.Replaced, 1)
	s.release(false, 1)
	s.revoke(false, 1)
	s.holds(2)
	// Even where there is room again.
	s.release(true, 2)
	s.acquire(guard.Replaced, claim(1), replacing)
	s.Advance(policy.TTL)
	s.acquire(guard.Admitted, claim(1), replacing)
}

func (s *suite) whoStartsAnewMay() {
	s.acquire(guard.Admitted, claim(1), replacing)
	s.replaces(guard.Admitted, claim(2), replacing, 1)
	s.acquire(guard.Replaced, claim(1), replacing)
	s.replaces(guard.Admitted, anew(claim(1)), replacing, 2)
	s.acquire(guard.Refreshed, claim(1), replacing)
	// A manifest is enough, and its media need not be the first request.
	s.replaces(guard.Vacant, with(anew(claim(2)), guard.Look), replacing)
	s.holds(1)
	s.replaces(guard.Admitted, named(claim(2)), replacing, 1)
	// It is replaced again like any other.
	s.acquire(guard.Replaced, claim(1), replacing)
	s.replaces(guard.Admitted, anew(claim(1)), replacing, 2)
	s.acquire(guard.Replaced, claim(2), replacing)
	s.holds(1)
	// An operator's word stands.
	s.revoke(true, 1)
	s.acquire(guard.Revoked, with(anew(claim(1)), guard.Look), replacing)
	s.acquire(guard.Revoked, anew(claim(1)), replacing)
}

// Two that start anew before they could be refused throw each other out as well.
func (s *suite) anotherClientThrowsOutWhoIsWatching() {
	outcomes := make([]guard.Outcome, 0, 8)
	for n := range 8 {
		c := anew(by(guard.Client(n%2+1), claim(n)))
		c.Stream = []string{"tv", "phone"}[n%2]
		v, err := s.Store.Acquire(s.Context(), c, replacing)
		if err != nil {
			s.Fatal(err)
		}
		outcomes = append(outcomes, v.Outcome)
		s.Advance(guard.Watched / 2)
	}
	want := []guard.Outcome{guard.Admitted, guard.Admitted, guard.Admitted, guard.Admitted, guard.Admitted, guard.Admitted, guard.Rejected}
	if !slices.Equal(outcomes[:7], want) {
		s.Errorf("%v, want %v", outcomes, want)
	}
}

// A live manifest without a token is asked for again and again: who has zapped back
// looks the same as who was thrown out, but for what was refused meanwhile.
func (s *suite) reloadTakesBackOnlyWhatNobodyWatched() {
	reload := with(anew(claim(1)), guard.Look)
	reload.Reloads = true
	s.acquire(guard.Admitted, claim(1), replacing)
	s.replaces(guard.Admitted, claim(2), replacing, 1)
	s.Advance(2 * guard.Watched)
	s.acquire(guard.Vacant, reload, replacing)
	s.replaces(guard.Admitted, named(claim(1)), replacing, 2)
	s.replaces(guard.Admitted, anew(claim(2)), replacing, 1)
	s.Advance(2 * guard.Watched)
	s.acquire(guard.Replaced, named(claim(1)), replacing)
	s.acquire(guard.Replaced, reload, replacing)
	s.holds(2)
}

func (s *suite) observingRefusesNobodyForAReplacement() {
	observed := replacing
	observed.Observe = true
	s.acquire(guard.Admitted, claim(1), replacing)
	s.replaces(guard.Admitted, on(2, "other", "", ""), replacing, 1)
	s.acquire(guard.Replaced, nameless(claim(9)), replacing)
	s.acquire(guard.Admitted, nameless(claim(9)), observed)
	s.release(true, 9)
	s.acquire(guard.Replaced, claim(1), replacing)
	s.replaces(guard.Admitted, claim(1), observed)
	s.holds(2, 1)
	s.revoke(true, 1)
	s.acquire(guard.Revoked, claim(1), observed)
}

// A node that has not heard of the replacement does not resume past the limit what
// another has started anew.
func (s *suite) startingAnewIsNoLeaveToResume() {
	one := replacing
	one.AtLimit = guard.Reject
	s.acquire(guard.Admitted, claim(1), replacing)
	s.replaces(guard.Admitted, claim(2), replacing, 1)
	s.acquire(guard.Vacant, with(anew(claim(1)), guard.Look), replacing)
	s.acquire(guard.Rejected, with(claim(1), guard.Resume), one)
	s.holds(2)
	s.replaces(guard.Admitted, with(claim(1), guard.Resume), replacing, 2)
	s.holds(1)
}

// A mark stays as long as it has somebody to refuse, and is over ttl after that.
func (s *suite) replacementStandsWhileItRefuses() {
	s.acquire(guard.Admitted, claim(1), replacing)
	s.replaces(guard.Admitted, claim(2), replacing, 1)
	for range 20 {
		s.Advance(policy.TTL / 3)
		s.refresh(guard.Refreshed, 2)
		if v := s.acquire(guard.Replaced, claim(1), replacing); v.FreeIn < policy.TTL/2 || v.FreeIn > policy.TTL {
			s.Errorf("stands for %v", v.FreeIn)
		}
	}
	s.Advance(policy.TTL)
	// A handler with a longer ttl keeps it for that.
	long := replacing
	long.TTL = 10 * time.Minute
	s.acquire(guard.Admitted, claim(1), replacing)
	s.replaces(guard.Admitted, claim(2), replacing, 1)
	for range 3 {
		if v := s.acquire(guard.Replaced, claim(1), long); v.FreeIn < long.TTL-10*time.Second {
			s.Errorf("stands for %v", v.FreeIn)
		}
		s.Advance(5 * time.Second)
	}
	s.Advance(long.TTL)
	// A revocation does not: it would have no end.
	s.acquire(guard.Admitted, claim(1), replacing)
	s.revoke(true, 1)
	for range 2 {
		s.Advance(policy.TTL/2 - time.Millisecond)
		s.acquire(guard.Revoked, claim(1), replacing)
	}
	s.Advance(2 * time.Millisecond)
	s.acquire(guard.Admitted, claim(1), replacing)
}

// Forty channels in ninety seconds, there and back, some with a last request of the
// channel before, under one id for each channel or a new one each time.
func (s *suite) zappingIsFree() {
	for _, newIDs := range []bool{false, true} {
		before := named(claim(0))
		for n := range 80 {
			channel := n % 40
			c := named(on(channel, fmt.Sprint("channel ", channel), "box", ""))
			if newIDs {
				c.ID = id(1000 + n)
			}
			look := with(anew(c), guard.Look)
			s.acquire(guard.Vacant, look, replacing)
			s.acquire(guard.Admitted, c, replacing)
			s.Advance(guard.Watched)
			if n > 0 {
				s.acquire(guard.Replaced, before, replacing)
			}
			s.Advance(1250 * time.Millisecond)
			s.acquire(guard.Refreshed, c, replacing)
			before = c
		}
		s.Advance(2 * policy.TTL)
	}
}

// A page that was left open and asks on does not come back because its successor zaps.
func (s *suite) zappingDoesNotBringTheReplacedBack() {
	left := named(on(0, "left open", "", ""))
	s.acquire(guard.Admitted, left, replacing)
	for n := 1; n < 4*guard.MaxMarks; n++ {
		s.acquire(guard.Admitted, anew(named(on(n, fmt.Sprint("channel ", n), "", ""))), replacing)
		s.Advance(2 * time.Second)
		s.acquire(guard.Replaced, left, replacing)
	}
}

// Between two channels, as often as somebody likes.
func (s *suite) goingBackIsFree() {
	for n := range 40 {
		channel := n % 2
		c := named(on(channel, fmt.Sprint("channel ", channel), "box", ""))
		s.acquire(guard.Vacant, with(anew(c), guard.Look), replacing)
		s.acquire(guard.Admitted, c, replacing)
		s.Advance(2 * time.Second)
	}
}

// rival is a player that starts anew whenever it is thrown out.
type rival struct {
	stream        int
	id            int
	playing       bool
	starts, swaps int
}

// asks is the next request of a player, and what comes of it.
func (s *suite) asks(r *rival, newIDs bool, p guard.Policy) guard.Verdict {
	s.Helper()
	claim := func() guard.Claim { return named(on(r.id, fmt.Sprint("stream ", r.stream), "", "")) }
	acquire := func(c guard.Claim) guard.Verdict {
		s.Helper()
		v, err := s.Store.Acquire(s.Context(), c, p)
		if err != nil {
			s.Fatal(err)
		}
		return v
	}
	if r.playing {
		v := acquire(claim())
		if v.Outcome != guard.Replaced {
			return v
		}
		r.playing = false
	}
	if r.starts++; newIDs {
		r.id += 1000
	}
	v := acquire(with(anew(claim()), guard.Look))
	if v.Outcome == guard.Vacant {
		v = acquire(claim())
		r.swaps += len(v.Replaced)
		r.playing = v.Outcome == guard.Admitted
	}
	return v
}

// Two players that start anew whenever they are thrown out do so for ten minutes.
// Each comes back twice; then one of them plays on, and the other is told why not.
func (s *suite) twoThatThrowEachOtherOutSettle() {
	for _, newIDs := range []bool{false, true} {
		for _, every := range []time.Duration{4 * time.Second, 10 * time.Second, 20 * time.Second} {
			first, second := &rival{stream: 1, id: 1}, &rival{stream: 2, id: 2}
			s.asks(first, newIDs, replacing)
			s.Advance(every)
			s.asks(second, newIDs, replacing)
			if first.swaps+second.swaps != 1 {
				s.Fatal("the second does not throw the first out")
			}
			settled := 0
			for n := time.Duration(0); n < 10*time.Minute; n += every {
				s.Advance(every / 2)
				a := s.asks(first, newIDs, replacing)
				s.Advance(every / 2)
				b := s.asks(second, newIDs, replacing)
				if b.Outcome == guard.Rejected {
					a, b = b, a
				}
				switch {
				case a.Outcome == guard.Rejected:
					settled++
					if !a.Lately || a.FreeIn <= 0 || a.FreeIn > policy.TTL || a.Blocking != 1 || a.Rule.Limit != 1 || a.Rule.AtLimit != guard.ReplaceOldest {
						s.Errorf("refused by %+v", a)
					}
					if b.Outcome != guard.Refreshed {
						s.Errorf("and yet the other is told %v", b.Outcome)
					}
				case settled > 0:
					s.Errorf("settled, and yet %v and %v", a.Outcome, b.Outcome)
				}
			}
			if returns := first.swaps + second.swaps - 1; returns != 2*guard.MaxReturns || settled < 5 {
				s.Errorf("%d returns, want %d; settled %d times", returns, 2*guard.MaxReturns, settled)
			}
			// Where there is room the other plays again.
			if second.playing {
				first, second = second, first
			}
			s.release(true, first.id)
			if v := s.asks(second, newIDs, replacing); v.Outcome != guard.Admitted || v.Lately {
				s.Errorf("with room: %+v", v)
			}
			s.release(true, second.id)
			s.Advance(2 * policy.TTL)
		}
	}
}

// A request that had not heard of the replacement yet is no viewer who was thrown out.
func (s *suite) returnsCountFromARefusalOn() {
	for _, late := range []bool{false, true} {
		want := guard.Admitted
		for swap := range 7 {
			n := swap % 2
			if late && swap == 6 {
				want = guard.Rejected
			}
			v := s.acquire(want, anew(on(n, fmt.Sprint(n), "", "")), replacing)
			if v.Lately != (want == guard.Rejected) {
				s.Errorf("verdict %+v", v)
			}
			s.Advance(guard.Watched)
			if late {
				s.Advance(time.Millisecond)
			}
			if swap > 0 && want == guard.Admitted {
				other := 1 - n
				s.acquire(guard.Replaced, on(other, fmt.Sprint(other), "", ""), replacing)
			}
		}
		if late {
			// It is of the stream, whoever starts it and by whichever rule,
			p := policy
			p.Rules = []guard.Rule{{Per: "class", Limit: 1, AtLimit: guard.ReplaceOldest}}
			s.acquire(guard.Refreshed, on(1, "1", "", "big"), p)
			if v := s.acquire(guard.Rejected, on(7, "0", "", "big"), p); !v.Lately || v.Rule.Per != "class" {
				s.Errorf("verdict %+v", v)
			}
			if v := s.acquire(guard.Rejected, with(on(7, "0", "", "big"), guard.Look), p); !v.Lately {
				s.Errorf("verdict %+v", v)
			}
			// and of no other; nor is it asked where nobody has to go.
			p.Limit = 2
			s.acquire(guard.Admitted, on(8, "0", "", ""), p)
			s.acquire(guard.Admitted, on(9, "elsewhere", "", "big"), p)
			// Who had room and is replaced then is in no fight yet.
			s.release(true, 8)
			s.release(true, 9)
			s.replaces(guard.Admitted, anew(on(0, "0", "", "")), replacing)
			s.replaces(guard.Admitted, anew(on(3, "third", "", "")), replacing, 0)
			s.replaces(guard.Admitted, anew(on(0, "0", "", "")), replacing, 3)
		}
		s.Advance(2 * policy.TTL)
	}
}

func (s *suite) limitPerClient() {
	p := policy
	p.Limit, p.Rules = 2, []guard.Rule{{Per: "client", Limit: 1, AtLimit: guard.ReplaceOldest}}
	channel := func(n int) guard.Claim { return nameless(on(n, fmt.Sprint("channel ", n), "", "")) }
	s.acquire(guard.Admitted, by(7, channel(0)), p)
	for n := 1; n < 40; n++ {
		s.acquire(guard.Vacant, with(by(7, anew(on(1000+n, fmt.Sprint("channel ", n), "", ""))), guard.Look), p)
		s.replaces(guard.Admitted, by(7, channel(n)), p, n-1)
		s.Advance(2 * time.Second)
	}
	// Back again: it was nobody else who took the slot.
	s.acquire(guard.Replaced, by(7, channel(38)), p)
	s.acquire(guard.Vacant, with(by(7, anew(on(2000, "channel 38", "", ""))), guard.Look), p)
	s.replaces(guard.Admitted, by(7, channel(38)), p, 39)
	// Another client has a slot of its own, and one that is not known none of a client.
	s.acquire(guard.Admitted, by(8, channel(50)), p)
	s.refuses(channel(60), p, "", 38, 50)
	s.release(true, 50)
	s.acquire(guard.Admitted, channel(60), p)
	p.Limit = 3
	s.acquire(guard.Admitted, channel(70), p)
	// A guard stays its client's, whoever asks under its name.
	if g := s.acquire(guard.Refreshed, by(8, on(60, "channel 60", "", "")), p).Guard; g.Client != 0 {
		s.Errorf("the guard is of %v", g.Client)
	}
}
