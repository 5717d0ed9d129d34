package guardtest

import (
	"fmt"
	"time"

	"github.com/streamguard/streamguard/guard"
)

// serves expects a request without a name to be served by a guard, and no other to be made.
func (s *suite) serves(n int, c guard.Claim, p guard.Policy) guard.Guard {
	s.Helper()
	before, _ := s.Store.List(s.Context(), "user")
	v := s.acquire(guard.Refreshed, c, p)
	if v.Guard.ID != id(n) || v.Held != len(before) {
		s.Fatalf("served by %+v, %d are held, want %v of %d", v.Guard, v.Held, id(n), len(before))
	}
	return v.Guard
}

func (s *suite) namelessKeepAliveWhatNeverNamedItself() {
	s.acquire(guard.Admitted, claim(1), policy)
	s.Advance(time.Second)
	s.acquire(guard.Admitted, claim(2), policy)
	s.acquire(guard.Admitted, named(claim(3)), policy)
	s.Advance(60 * time.Second)
	s.serves(1, nameless(claim(9)), policy)
	s.Advance(40 * time.Second)
	s.holds(1, 2)
	// Once their own media have come, they keep themselves.
	s.acquire(guard.Refreshed, named(claim(1)), policy)
	s.Advance(40 * time.Second)
	s.serves(1, nameless(claim(9)), policy)
	s.Advance(60 * time.Second)
	s.holds(2)
	// The last one that goes leaves them to themselves.
	s.acquire(guard.Refreshed, named(claim(2)), policy)
	s.Advance(80 * time.Second)
	s.serves(2, nameless(claim(9)), policy)
	s.Advance(10 * time.Second)
	s.acquire(guard.Admitted, nameless(claim(9)), policy)
	s.serves(9, nameless(claim(9)), policy)
	s.holds(9)
	// Nor does what is filled in keep it.
	s.release(true, 9)
	s.Advance(policy.TTL)
	before := s.acquire(guard.Admitted, named(on(1, "", "", "")), policy).Guard
	s.Advance(time.Second)
	if g := s.serves(1, nameless(claim(9)), policy); g.Stream != "movie" || g.RemovedAt != before.RemovedAt {
		s.Errorf("guard %+v", g)
	}
}

// A manifest without a name is served like media, but takes nothing.
func (s *suite) namelessLookIsServedToo() {
	one := policy
	one.Limit = 1
	look := with(nameless(claim(9)), guard.Look)
	s.acquire(guard.Vacant, look, one)
	s.acquire(guard.Admitted, claim(1), one)
	s.serves(1, look, one)
	s.acquire(guard.Rejected, with(nameless(on(9, "other", "tv", "")), guard.Look), one)
	s.holds(1)
}

func (s *suite) namelessStayOnTheirStreamAndDevice() {
	two := policy
	two.Limit = 2
	s.acquire(guard.Admitted, claim(1), two)
	other := nameless(claim(9))
	other.Stream = "channel 2"
	s.acquire(guard.Admitted, other, two)
	elsewhere := nameless(claim(8))
	elsewhere.Device = "phone"
	s.acquire(guard.Rejected, elsewhere, two)
	s.holds(1, 9)
	// Who does not know the device is served by any.
	elsewhere.Device = ""
	s.serves(1, elsewhere, two)
}

// A guard that a request without a name has made is its client's: two televisions
// of one film are two.
func (s *suite) namelessGuardsAreTheirClients() {
	two := policy
	two.Limit = 2
	s.acquire(guard.Admitted, nameless(by(7, claim(1))), two)
	s.acquire(guard.Admitted, nameless(by(8, claim(2))), two)
	s.serves(1, nameless(by(7, claim(11))), two)
	s.serves(2, nameless(by(8, claim(12))), two)
	s.acquire(guard.Rejected, nameless(by(9, claim(3))), two)
	// Who is not known may be either,
	s.serves(1, nameless(claim(3)), two)
	// and what somebody else has made serves all of them.
	s.release(true, 2)
	s.Advance(guard.Settle)
	s.acquire(guard.Admitted, by(8, claim(2)), two)
	s.serves(2, nameless(by(9, claim(3))), two)
}

// What is not known of a guard matches anything, and is known from then on.
func (s *suite) whatIsNotKnownIsFilledIn() {
	one := policy
	one.Limit = 1
	for _, c := range []struct{ stream, device, wantStream, wantDevice string }{
		{"", "", "film", "tv"}, {"", "tv", "film", "tv"}, {"film", "", "film", "tv"}, {"film", "tv", "film", "tv"},
	} {
		for _, itself := range []bool{false, true} {
			held := on(1, c.stream, c.device, "")
			held.Named = itself
			s.acquire(guard.Admitted, held, one)
			if g := s.serves(1, nameless(on(9, "film", "tv", "")), one); g.Stream != c.wantStream || g.Device != c.wantDevice {
				s.Errorf("%+v: the guard is on %q, %q", c, g.Stream, g.Device)
			}
			s.acquire(guard.Rejected, nameless(on(9, "other", "tv", "")), one)
			s.acquire(guard.Rejected, nameless(on(9, "film", "phone", "")), one)
			// A request that knows less is served, and changes nothing.
			for _, c := range []guard.Claim{on(9, "", "", ""), on(9, "film", "", ""), on(9, "", "tv", "")} {
				if g := s.serves(1, nameless(c), one); g.Stream != "film" || g.Device != "tv" {
					s.Errorf("the guard is on %q, %q", g.Stream, g.Device)
				}
			}
			s.release(true, 1)
			s.Advance(policy.TTL)
		}
	}
}

func (s *suite) fillingInNeedsRoom() {
	p := policy
	p.Rules = []guard.Rule{{Per: "stream", Limit: 1}, {Per: "device", Limit: 1}}
	s.acquire(guard.Admitted, on(1, "a", "tv", ""), p)
	s.acquire(guard.Admitted, on(2, "", "", ""), p)
	s.refuses(nameless(on(9, "a", "phone", "")), p, "stream", 1)
	s.refuses(nameless(on(9, "b", "tv", "")), p, "device", 1)
	if g := s.holds(1, 2)[1]; g.Stream != "" || g.Device != "" {
		s.Errorf("refused, and yet the guard is on %q, %q", g.Stream, g.Device)
	}
	s.serves(2, nameless(on(9, "b", "phone", "")), p)
	s.acquire(guard.Refreshed, on(2, "b", "phone", ""), p)
}

func (s *suite) reservationServesOneTitle() {
	one := policy
	one.Limit = 1
	s.acquire(guard.Admitted, anew(guard.Claim{User: "user", ID: id(1)}), one)
	s.serves(1, nameless(on(100, "title 0", "", "")), one)
	for n := 1; n < 10; n++ {
		s.acquire(guard.Rejected, nameless(on(100+n, fmt.Sprint("title ", n), "", "")), one)
	}
	s.serves(1, nameless(on(100, "title 0", "", "")), one)
	s.holds(1)
}

// What ends is the playback, under whichever name it is asked for.
func (s *suite) whatEndsEndsForNamelessToo() {
	one := replacing
	for _, known := range []guard.Claim{claim(1), on(1, "movie", "", ""), on(1, "", "", "")} {
		lost := nameless(claim(9))
		s.acquire(guard.Admitted, known, one)
		s.Advance(time.Minute)
		s.revoke(true, 1)
		for range 8 {
			v := s.acquire(guard.Revoked, lost, one)
			if v.FreeIn <= 0 || v.Held != 0 {
				s.Errorf("verdict %+v", v)
			}
			s.Advance(10 * time.Second)
		}
		s.Advance(10 * time.Second)
		s.acquire(guard.Admitted, lost, one)
		s.release(true, 9)
		s.Advance(policy.TTL)

		s.acquire(guard.Admitted, known, one)
		s.replaces(guard.Admitted, on(2, "other", "phone", ""), one, 1)
		s.Advance(2 * time.Second)
		s.acquire(guard.Replaced, lost, one)
		s.acquire(guard.Replaced, with(lost, guard.Look), one)
		s.holds(2)
		// Whoever starts anew on that stream has them.
		s.replaces(guard.Vacant, with(anew(claim(3)), guard.Look), one)
		s.acquire(guard.Replaced, known, one)
		s.replaces(guard.Admitted, lost, one, 2)
		s.serves(9, lost, one)
		s.holds(9)
		// The playback itself too, and what it had made without a name.
		s.replaces(guard.Admitted, anew(on(2, "other", "phone", "")), one, 9)
		s.acquire(guard.Replaced, lost, one)
		s.replaces(guard.Vacant, with(anew(known), guard.Look), one)
		s.replaces(guard.Admitted, lost, one, 2)
		s.acquire(guard.Refreshed, with(claim(9), guard.Resume), one)
		s.serves(9, lost, one)
		s.release(true, 9)
		s.Advance(2 * policy.TTL)
		s.acquire(guard.Admitted, known, one)
		s.replaces(guard.Admitted, on(2, "other", "phone", ""), one, 1)
		s.replaces(guard.Vacant, with(anew(known), guard.Look), one)
		s.replaces(guard.Admitted, lost, one, 2)
		s.release(true, 9)
		s.Advance(2 * policy.TTL)
	}
	// Another stream or device is another playback.
	s.acquire(guard.Admitted, claim(1), one)
	s.revoke(true, 1)
	s.acquire(guard.Admitted, nameless(on(9, "other", "tv", "")), one)
	s.release(true, 9)
	s.acquire(guard.Admitted, nameless(on(9, "movie", "phone", "")), one)
}

// A guard that stands where another was ended serves as ever.
func (s *suite) namelessGoOnWithWhatStartedAnew() {
	s.acquire(guard.Admitted, nameless(by(7, claim(9))), policy)
	s.revoke(true, 9)
	s.acquire(guard.Revoked, nameless(by(7, claim(9))), policy)
	s.acquire(guard.Admitted, named(by(7, claim(1))), policy)
	s.serves(1, nameless(by(7, claim(9))), policy)
	// Of guards that requests without a name made, marks are their client's too.
	s.release(true, 1)
	s.acquire(guard.Revoked, nameless(by(7, claim(9))), policy)
	s.acquire(guard.Admitted, nameless(by(8, claim(8))), policy)
	// Its own revocation is its own wherever it is now; its replacement is of one stream.
	elsewhere := nameless(by(7, on(9, "elsewhere", "", "")))
	s.acquire(guard.Revoked, elsewhere, policy)
	s.acquire(guard.Revoked, with(elsewhere, guard.Resume), policy)
	s.Advance(policy.TTL)
	s.acquire(guard.Admitted, nameless(by(7, claim(9))), replacing)
	s.replaces(guard.Admitted, on(2, "other", "phone", ""), replacing, 9)
	s.acquire(guard.Replaced, nameless(by(7, claim(9))), replacing)
	one := replacing
	one.AtLimit = guard.Reject
	s.acquire(guard.Rejected, with(elsewhere, guard.Resume), one)
	s.replaces(guard.Admitted, elsewhere, replacing, 2)
	s.acquire(guard.Refreshed, with(by(7, on(9, "elsewhere", "", "")), guard.Resume), replacing)
}

func (s *suite) namelessStragglersPass() {
	one := policy
	one.Limit = 1
	s.acquire(guard.Admitted, claim(1), one)
	s.Advance(time.Minute)
	s.serves(1, nameless(claim(9)), one)
	s.release(true, 1)
	s.acquire(guard.Admitted, on(2, "other", "", ""), one)
	s.acquire(guard.Released, nameless(claim(9)), one)
	s.acquire(guard.Rejected, with(nameless(claim(9)), guard.Look), one)
	s.acquire(guard.Rejected, nameless(on(9, "movie", "phone", "")), one)
	s.Advance(guard.Settle - time.Millisecond)
	s.acquire(guard.Released, nameless(claim(9)), one)
	s.Advance(time.Millisecond)
	s.acquire(guard.Rejected, nameless(claim(9)), one)
	s.holds(2)
}

// Whoever reserves a slot every eight seconds and gives it back after four plays no
// twenty unnamed films in between.
func (s *suite) givingAReservationBackLetsNoNamelessPass() {
	one := policy
	one.Limit = 1
	passed := 0
	for n := range 20 {
		s.acquire(guard.Admitted, anew(guard.Claim{User: "user", ID: id(n)}), one)
		s.Advance(4 * time.Second)
		s.release(true, n)
		s.acquire(guard.Admitted, anew(guard.Claim{User: "user", ID: id(1000 + n), Stream: "s", Device: "d"}), one)
		for film := range 20 {
			v, err := s.Store.Acquire(s.Context(), nameless(on(100+film, fmt.Sprint("film ", film), "", "")), one)
			if err != nil {
				s.Fatal(err)
			}
			if v.Outcome.Pass() {
				passed++
			}
		}
		s.Advance(4 * time.Second)
		s.release(true, 1000+n)
	}
	if passed > 0 {
		s.Errorf("%d segments passed", passed)
	}
}

// Of a guard that the store has lost, whoever comes first brings it back, under the
// id that it had, and nobody is refused.
func (s *suite) lostGuardComesBackUnderItsOwnID() {
	one := policy
	one.Limit = 1
	lost := nameless(by(7, claim(9)))
	lost.For = id(1)
	s.acquire(guard.Admitted, on(2, "other", "", ""), one) // in the meantime
	v := s.acquire(guard.Admitted, lost, one)
	if v.Guard.ID != id(1) || v.Guard.Stream != "movie" || v.Held != 2 {
		s.Errorf("verdict %+v", v)
	}
	s.acquire(guard.Refreshed, with(named(claim(1)), guard.Resume), one)
	s.serves(1, lost, one)
	s.holds(2, 1)
	s.release(true, 1)
	s.release(true, 2)
	s.Advance(policy.TTL)

	// Or the other way round.
	s.acquire(guard.Admitted, on(2, "other", "", ""), one)
	s.acquire(guard.Admitted, with(claim(1), guard.Resume), one)
	s.serves(1, lost, one)
	// Who has another guard to speak for needs none back.
	lost.For = id(5)
	s.serves(1, lost, one)
	s.holds(2, 1)
	// What it brings back is kept by others that have lost their names too.
	s.release(true, 1)
	s.Advance(policy.TTL)
	lost.For = id(1)
	s.acquire(guard.Admitted, lost, one)
	s.serves(1, nameless(by(8, claim(10))), one)
}

// It speaks for no guard that goes its own way, and none that was ended.
func (s *suite) namelessBringNothingElseBack() {
	one := policy
	one.Limit = 1
	lost := nameless(claim(9))
	lost.For = id(1)
	s.acquire(guard.Admitted, claim(1), one)
	s.acquire(guard.Refreshed, on(1, "other", "", ""), one)
	s.acquire(guard.Rejected, lost, one)
	s.Advance(time.Minute)
	for _, end := range []func(bool, int){s.release, s.revoke} {
		end(true, 1)
		s.acquire(guard.Admitted, on(2, "third", "", ""), one)
		s.acquire(guard.Rejected, lost, one)
		s.holds(2)
		s.release(true, 2)
		s.Advance(policy.TTL)
		s.acquire(guard.Admitted, on(1, "other", "", ""), one)
	}
	s.replaces(guard.Admitted, on(2, "third", "", ""), replacing, 1)
	s.acquire(guard.Rejected, lost, one)
	// Where ends were forgotten it is judged like any other.
	for n := range guard.MaxMarks + 1 {
		s.acquire(guard.Admitted, on(100+n, "zapped", "", ""), policy)
		s.release(true, 100+n)
	}
	lost.For = id(50)
	s.acquire(guard.Rejected, lost, one)
	s.holds(2)
}

func (s *suite) aGuardKeepsItsStreamWhereToldTo() {
	keeps := claim(1)
	keeps.Stream, keeps.Keeps = "", true
	s.acquire(guard.Admitted, keeps, policy)
	for _, stream := range []string{"film", "ad"} {
		keeps.Stream = stream
		if g := s.acquire(guard.Refreshed, keeps, policy).Guard; g.Stream != "film" {
			s.Errorf("the guard is on %q", g.Stream)
		}
	}
	// A rule about the stream that it is kept from says nothing.
	p := policy
	p.Rules = []guard.Rule{{Per: "stream", Limit: 1}}
	s.acquire(guard.Admitted, on(2, "ad", "", ""), p)
	s.acquire(guard.Refreshed, keeps, p)
	keeps.Keeps = false
	s.refuses(keeps, p, "stream", 2)
}
