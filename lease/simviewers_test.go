package lease

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/streamguard/streamguard/guard"
)

// The viewers of a simulation, and what else makes calls in it.

// newID is that of a new playback.
func newID(rng *rand.Rand, user string) guard.ID {
	return guard.DeriveID(user, "", fmt.Sprint(rng.Uint64()))
}

// another is for what goes on beside that.
func another(rng *rand.Rand) *rand.Rand { return rand.New(rand.NewPCG(rng.Uint64(), 1)) }

// looking is a request for a manifest, which says the stream.
func looking(c guard.Claim) guard.Claim {
	c.Intent, c.Named, c.Keeps = guard.Look, false, false
	return c
}

// anew is a claim of a playback's first request.
func anew(c guard.Claim) guard.Claim {
	c.Anew = true
	return c
}

// play plays a video on one node and reports whether it came to its own end.
func (w *world) play(rng *rand.Rand, user string, id guard.ID, at int, longest time.Duration) (ended bool) {
	c := guard.Claim{User: user, ID: id, Stream: fmt.Sprint("movie", rng.IntN(3)), Named: true}
	manifest := looking(c)
	begins := []guard.Claim{c}
	switch rng.IntN(4) {
	case 0: // without a name
		c.Named, c.Nameless, c.Stream = false, true, id.String()
		begins, manifest = []guard.Claim{anew(c)}, looking(c)
	case 1: // a page says so first
		begins[0].Named, begins[0].Anew = false, true
	case 2: // as a player does
		begins = []guard.Claim{anew(manifest), manifest}
		c.Stream, c.Keeps = "cdn", true
	}
	p := w.policyOf(user)
	defer w.plays(user, id, policy.Limit, false)
	first := w.node(at)
	first.link.starts(id)
	time.Sleep(time.Millisecond) // a node cannot tell a start from an ending in the same one
	closes, other := rng.IntN(4), at
	if rng.IntN(4) == 0 {
		other = rng.IntN(len(w.nodes))
	}
	var (
		life   life
		inVain sync.WaitGroup
		played int
	)
	defer inVain.Wait()
	for end := time.Now().Add(time.Duration(5+rng.IntN(120)) * time.Second); time.Now().Before(end) && !w.over(); played++ {
		n := w.node(at)
		if played > 0 && rng.IntN(2) == 0 {
			n = w.node(other)
		}
		ask := c
		switch {
		case played < len(begins):
			ask = begins[played]
		case rng.IntN(5) == 0:
			ask = manifest
		}
		if ask.Labels = ""; !ask.Nameless && rng.IntN(8) == 0 {
			ask.Labels = ask.Labels.With("screen", fmt.Sprint(rng.IntN(2)))
		}
		if rng.IntN(8) == 0 || played < 3 && rng.IntN(3) == 0 {
			w.inVain(rng, &inVain, n, ask, p)
		}
		v, trial, err := w.begin(context.Background(), rng, n, ask, p)
		if err != nil && p.CountLocally {
			w.wrong("%s: %v", user, err)
		}
		if err != nil || !v.Outcome.Pass() {
			if life.goesOn(w) && !w.lost(c, first, n) && !w.mayBeClosed(id) && !(other != at && w.isUnsure(id)) {
				w.wrong("%s, who plays, is refused %v: %v, %v", user, id, v.Outcome, err)
			}
			// What ends on one node another counts that is cut off.
			return other != at && time.Since(n.link.reachable(user)) < silence
		}
		if rng.IntN(4) == 0 {
			time.Sleep(time.Duration(rng.Int64N(int64(time.Second))))
		}
		trial.End(true)
		pause := time.Duration(500+rng.IntN(6000)) * time.Millisecond
		if v.Outcome == guard.Vacant || v.Outcome == guard.Released {
			time.Sleep(pause / 10)
			continue
		}
		w.plays(user, id, policy.Limit, true)
		life.shows(v)
		if rng.IntN(10) == 0 { // it reports itself
			w.asks(n, id)
			n.Keep(context.Background(), guard.Claim{User: user, ID: id}, p)
		}
		w.back(user, id)
		left := closes == idles
		switch rng.IntN(60) {
		case 0:
			pause = hidden
		case 1:
			if longest > hidden { // paused
				pause = hidden + time.Duration(rng.Int64N(int64(longest-hidden)))
				w.plays(user, id, policy.Limit, false)
				left = left || closes == pauses
			}
		case 5: // back in the moment in which he is hung up
			pause = hangUp - 2*latency + time.Duration(rng.Int64N(int64(6*latency)))
			left = closes <= idles
		case 2, 3, 4: // ended right after a request, with a refresh under way perhaps
			time.Sleep(time.Duration(rng.Int64N(int64(2 * linger))))
			return true
		}
		if left {
			w.leave(rng, n, user, id)
		}
		time.Sleep(pause + time.Duration(rng.IntN(1_000_000)))
	}
	return true
}

// When a client closes its connections.
const (
	pauses = iota // when its viewer pauses
	idles         // when it asks for nothing
)

// leave is a client that closes its connections to a node. If it asks for nothing else
// there, it is hung up.
func (w *world) leave(rng *rand.Rand, n *simNode, user string, id guard.ID) {
	w.mu.Lock()
	asked := w.asked[memory{n.link, id, false}]
	w.mu.Unlock()
	its := another(rng)
	w.running.Go(func() {
		time.Sleep(hangUp + time.Duration(its.IntN(1_000_000)))
		w.hangUp(n, user, id, asked)
	})
}

// hangUp is a node that hangs up who has asked it so many times, and not once more.
func (w *world) hangUp(n *simNode, user string, id guard.ID, asked int) (closed bool) {
	n.link.pause(time.Microsecond)
	if w.reclaim == guard.ReclaimOff {
		return false
	}
	w.mu.Lock()
	if w.asked[memory{n.link, id, false}] != asked {
		w.mu.Unlock()
		return false
	}
	delete(w.playing[user], w.viewer(id))
	w.hanging[id]++
	w.mu.Unlock()
	away := w.away.Load()
	closed, err := n.HangUp(context.Background(), user, id)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tell("%s %v is hung up: %v %v", user, id, closed, err)
	w.hanging[id]--
	if closed || err != nil && err != ErrNotNow {
		w.hungUp[id] = true
	}
	if closed {
		w.closed[id] = closing{n.link, w.store.losses}
	}
	if closed && away && w.away.Load() {
		w.wrong("%s is closed while the store is away", id)
	}
	return closed
}

// back notes that a playback goes on, and that its guard is not closed.
func (w *world) back(user string, id guard.ID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if g := w.store.find(user, id); g != nil && !g.Closed && w.hanging[id] == 0 {
		delete(w.hungUp, id)
	}
}

// mayBeClosed reports whether the slot of a playback may have been taken.
func (w *world) mayBeClosed(id guard.ID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.hungUp[id] || w.hanging[id] > 0
}

func (w *world) isUnsure(id guard.ID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.unsure[id]
}

// inVain is one more request of a playback at the same time, which is not
// delivered, or whose client does not wait for the decision.
func (w *world) inVain(rng *rand.Rand, all *sync.WaitGroup, n *simNode, c guard.Claim, p guard.Policy) {
	its, ctx, cancel := another(rng), context.Background(), context.CancelFunc(func() {})
	if rng.IntN(4) == 0 {
		ctx, cancel = context.WithTimeout(ctx, time.Duration(rng.Int64N(int64(6*latency))))
	}
	all.Go(func() {
		defer cancel()
		time.Sleep(time.Duration(its.Int64N(int64(4 * latency))))
		_, trial, _ := w.begin(ctx, its, n, c, p)
		time.Sleep(time.Duration(its.Int64N(int64(time.Second))))
		trial.End(false)
	})
	time.Sleep(time.Duration(rng.Int64N(int64(4 * latency))))
}

// life is when a viewer last asked, and when he last came back after having been
// silent for so long that the lease might be about to end, with the slot.
type life struct{ last, back time.Time }

func (l *life) shows(v guard.Verdict) {
	if time.Since(l.last) >= playing && v.Outcome == guard.Known {
		l.back = time.Now()
	}
	l.last = time.Now()
}

// goesOn reports whether who asks now has not been silent for too long.
func (l *life) goesOn(w *world) bool {
	return time.Since(l.last) < w.silentFor() && l.last.Sub(l.back) > 5*time.Second
}

// silentFor is how long who plays may be silent: the store may hear of him that
// much later.
func (w *world) silentFor() time.Duration {
	longest := playing
	if w.reclaim == guard.ReclaimLapsed {
		longest = policy.Interval - (policy.TTL - playing)
	}
	if w.has(tardy) {
		return longest - 5*muchOfIt
	}
	return longest
}

func (w *world) policyOf(user string) guard.Policy {
	p := policy
	p.Reclaim = w.reclaim
	p.CountLocally = user != "greedy1" // for whom nobody counts while the store is away
	if user == "greedy0" {             // whose requests come to two handlers, of which one allows less
		p.Limit -= int(time.Now().UnixNano() % 2)
	}
	return p
}

// lost reports whether nobody can know any more that a playback was admitted:
// the store has lost it or not heard of it, and its node was replaced or has
// news of an earlier ending, or the store may take that for a later one.
func (w *world) lost(c guard.Claim, first, n *simNode) bool {
	failed, told := n.link.reachable(c.User), n.link.isTold(c.ID)
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.unsure[c.ID] && (n != first || told || w.store.maybeWrong(c.User)) || n != first && time.Since(failed) < silence
}

func (w *world) plays(user string, id guard.ID, limit int, on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.playing[user] == nil {
		w.playing[user] = make(map[guard.ID]bool)
	}
	if !on {
		delete(w.playing[user], id)
		return
	}
	w.playing[user][id] = true
	if n := len(w.playing[user]); n > limit && w.faults == 0 {
		w.wrong("%s plays %d", user, n)
	}
}

// end stops a playback, politely or not, and waits until its slot is free, or may be
// taken.
func (w *world) end(rng *rand.Rand, user string, id guard.ID, at int) (released bool) {
	switch rng.IntN(4) {
	case 0: // its client closes its connections
		n := w.node(at)
		w.mu.Lock()
		asked := w.asked[memory{n.link, id, false}]
		w.mu.Unlock()
		time.Sleep(hangUp)
		if w.hangUp(n, user, id, asked) {
			return true
		}
	case 1, 2:
		n := w.node(at)
		n.link.pause(time.Microsecond)
		losses := w.losses()
		found, err := n.Release(context.Background(), user, id, policy)
		if found && err == nil {
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.nodes[at] == n && losses == w.store.losses && !w.holds(guard.Claim{User: user, ID: id}) {
				w.freed[id] = at
			}
			return true
		}
	}
	time.Sleep(silence)
	return false
}

func (w *world) honest(rng *rand.Rand, user string) {
	id, at := newID(rng, user), rng.IntN(len(w.nodes))
	ended := w.play(rng, user, id, at, hidden)
	if w.mu.Lock(); !ended && !w.store.maybeWrong(user) {
		w.wrong("%s, who keeps to the limit, is refused %v", user, id)
	}
	w.mu.Unlock()
	w.end(rng, user, id, at)
}

// greedy tries to play once more than allowed. Refused, it tries again, as
// players do; released, it may start again under the same id.
func (w *world) greedy(rng *rand.Rand, user string) {
	id := newID(rng, user)
	at := rng.IntN(len(w.nodes))
	for range 1 + rng.IntN(4) {
		if rng.IntN(3) == 0 {
			at = rng.IntN(len(w.nodes))
		}
		if rng.IntN(3) == 0 {
			w.glimpse(rng, user, id, at)
		}
		if w.play(rng, user, id, at, 3*hidden) && !w.end(rng, user, id, at) || w.over() {
			return
		}
		time.Sleep(time.Duration(rng.Int64N(int64(3 * time.Second))))
	}
}

// glimpse starts a playback and stops it before there is an answer.
func (w *world) glimpse(rng *rand.Rand, user string, id guard.ID, at int) {
	n := w.node(at)
	var asked sync.WaitGroup
	its := another(rng)
	asked.Go(func() { w.ask(its, n, guard.Claim{User: user, ID: id, Stream: "movie0"}, w.policyOf(user)) })
	time.Sleep(time.Duration(rng.Int64N(int64(2 * latency))))
	n.link.pause(time.Microsecond)
	n.Release(context.Background(), user, id, policy)
	if rng.IntN(2) == 0 {
		asked.Wait()
	}
}

// revoked plays a video that is revoked on another node.
func (w *world) revoked(rng *rand.Rand) {
	const user = "revoked"
	c := guard.Claim{User: user, ID: newID(rng, user), Named: true}
	at := rng.IntN(len(w.nodes))
	for n := 0; n < 60 && !w.over(); n++ {
		w.ask(rng, w.node(at), c, policy)
		if n == 20 {
			w.revoke(rng, user, c.ID, policy)
		}
		time.Sleep(time.Second + time.Duration(rng.Int64N(int64(time.Second))))
	}
	time.Sleep(silence)
}

// revoke ends a playback on any node.
func (w *world) revoke(rng *rand.Rand, user string, id guard.ID, p guard.Policy) {
	by := w.node(rng.IntN(len(w.nodes)))
	by.link.pause(time.Microsecond)
	losses := w.losses()
	if found, err := by.Revoke(context.Background(), user, id, p); found && err == nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.taken[w.viewer(id)] = ending{time.Now(), losses}
	}
}

// leaving is one of several viewers in turn on a plan of one. He plays, closes his
// connections, and comes back under the same name, before another has his slot or
// after that. Who plays asks at least every 4.5 s, and is never interrupted.
func (w *world) leaving(rng *rand.Rand) {
	const user = "leaving"
	p := w.policyOf(user)
	p.Limit = 1
	c := guard.Claim{User: user, ID: newID(rng, user), Stream: fmt.Sprint("film", rng.Uint64()), Named: true}
	at := rng.IntN(len(w.nodes))
	for range 8 {
		n := w.node(at)
		for plays := 0; plays < 1+rng.IntN(8); plays++ {
			n = w.node(at)
			ask := c
			if rng.IntN(3) == 0 {
				ask = looking(c)
			}
			v, err := w.ask(rng, n, ask, p)
			if err != nil || !v.Outcome.Pass() {
				if plays > 0 && w.faults == 0 {
					w.wrong("%s, who asks every few seconds, is refused %v: %v, %v", user, c.ID, v.Outcome, err)
				}
				break
			}
			if v.Outcome == guard.Vacant || v.Outcome == guard.Released {
				plays = -1 // he has no slot yet
			} else {
				w.plays(user, c.ID, p.Limit, true)
			}
			if time.Sleep(time.Duration(rng.Int64N(int64(4500 * time.Millisecond)))); w.over() {
				break
			}
		}
		w.plays(user, c.ID, p.Limit, false)
		if rng.IntN(5) > 0 {
			w.leave(rng, n, user, c.ID)
		}
		if rng.IntN(3) == 0 {
			at = rng.IntN(len(w.nodes))
		}
		if time.Sleep(time.Duration(rng.Int64N(int64(20 * time.Second)))); w.over() {
			break
		}
	}
	time.Sleep(silence)
}

// zapping starts one playback after the other, each in place of the one before,
// and plays a little of both. They are of two handlers with times of their own.
// Now and then it runs through more channels than there are marks.
func (w *world) zapping(rng *rand.Rand) {
	const user = "zapping"
	long := w.policyOf(user)
	long.Limit, long.AtLimit = 1, guard.ReplaceOldest
	short := long
	short.Interval, short.TTL = 20*time.Second, 30*time.Second
	start := func() (guard.Claim, guard.Policy, int) {
		c := guard.Claim{User: user, ID: newID(rng, user), Stream: fmt.Sprint("channel", rng.Uint64())}
		p, at := long, rng.IntN(len(w.nodes))
		if rng.IntN(2) == 0 {
			p = short
		}
		v, err := w.ask(rng, w.node(at), c, p)
		if err != nil || !v.Outcome.Pass() {
			w.wrong("who zaps is refused: %v, %v", v.Outcome, err)
		}
		c.Named, c.Anew = true, false
		return c, p, at
	}
	before, its, beforeAt := start()
	for !w.over() {
		replaced := time.Now()
		surfing := rng.IntN(6) == 0
		if surfing {
			for range guard.MaxMarks + rng.IntN(10) {
				start()
			}
		}
		c, p, at := start()
		silent := rng.IntN(2) == 0 // so is the one before, until it is asked for again
		rounds := rng.IntN(5)
		if silent {
			rounds = rng.IntN(25)
		}
		for n := range rounds {
			time.Sleep(time.Duration(rng.Int64N(int64(4 * time.Second))))
			w.ask(rng, w.node(at), c, p)
			if silent && n < rounds-1 || time.Since(replaced) > max(its.TTL, p.TTL)-5*time.Second {
				continue
			}
			v, _ := w.ask(rng, w.node(beforeAt), before, its)
			if v.Outcome == guard.Admitted || v.Outcome == guard.Refreshed {
				if w.faults == 0 && !surfing {
					w.wrong("what was replaced is %v", v.Outcome)
				}
				c, p, at = before, its, beforeAt
				break
			}
		}
		before, its, beforeAt = c, p, at
		if rng.IntN(3) == 0 {
			w.leave(rng, w.node(at), user, c.ID)
		}
	}
	time.Sleep(silence)
}

// crowding starts many playbacks, then one in place of them all under another
// handler's limit; and then all go on.
func (w *world) crowding(rng *rand.Rand) {
	const user, many = "crowding", 60
	p := w.policyOf(user)
	p.Limit, p.AtLimit = many, guard.ReplaceOldest
	claims, at := make([]guard.Claim, many), make([]int, many)
	for i := range claims {
		claims[i], at[i] = guard.Claim{User: user, ID: newID(rng, user)}, rng.IntN(len(w.nodes))
		w.ask(rng, w.node(at[i]), claims[i], p)
		claims[i].Named = true
	}
	p.Limit = 1
	last := guard.Claim{User: user, ID: newID(rng, user)}
	if v, err := w.ask(rng, w.node(0), last, p); err != nil || !v.Outcome.Pass() {
		w.wrong("who starts in place of %d others is refused: %v, %v", many, v.Outcome, err)
	}
	last.Named = true
	for range 5 {
		w.ask(rng, w.node(0), last, p)
		time.Sleep(time.Duration(rng.Int64N(int64(10 * time.Second))))
	}
	for i, c := range claims {
		w.ask(rng, w.node(at[i]), c, p)
	}
	time.Sleep(silence)
}

// calling keeps a guard by explicit calls and nothing else.
func (w *world) calling(rng *rand.Rand) {
	const user = "calling"
	c := guard.Claim{User: user, ID: newID(rng, user), Stream: "movie0", Device: "tv"}
	at := rng.IntN(len(w.nodes))
	first := w.node(at)
	first.link.pause(time.Microsecond)
	w.asks(first, c.ID)
	if v, err := first.Acquire(context.Background(), c, policy); err != nil || !v.Outcome.Pass() {
		time.Sleep(time.Duration(rng.Int64N(int64(10 * time.Second))))
		if err != nil { // it may have its slot
			time.Sleep(silence)
		}
		return
	}
	w.plays(user, c.ID, policy.Limit, true)
	last := time.Now()
	for range rng.IntN(10) {
		time.Sleep(time.Duration(rng.Int64N(int64(25 * time.Second))))
		if rng.IntN(6) == 0 {
			time.Sleep(hidden - 25*time.Second)
		}
		if w.over() {
			break
		}
		n := w.node(at)
		n.link.pause(time.Microsecond)
		w.asks(n, c.ID)
		v, err := n.Refresh(context.Background(), user, c.ID, policy)
		w.tell("%s %v is kept: %v %v", user, c.ID, v.Outcome, err)
		late := time.Since(last) >= w.silentFor() // its node stood still, say
		if err == nil && v.Outcome != guard.Refreshed && !late && !w.lost(c, first, n) {
			w.wrong("%s, who keeps %v, is told that it is %v", user, c.ID, v.Outcome)
		}
		if late || err == nil && v.Outcome != guard.Refreshed {
			break
		}
		if err == nil && v.Guard.Device != c.Device {
			w.wrong("%s has lost the names of %+v", user, v.Guard)
		}
		last = time.Now()
	}
	w.plays(user, c.ID, policy.Limit, false)
	w.end(rng, user, c.ID, at)
}

// returning plays a channel and gives its slot back every few seconds, as if a
// limit could be avoided by that.
func (w *world) returning(rng *rand.Rand) {
	const user = "returning"
	p := w.policyOf(user)
	p.Limit = 1
	c := guard.Claim{User: user, ID: newID(rng, user), Named: true}
	at := rng.IntN(len(w.nodes))
	var admitted, released, passed time.Time
	for range 60 + rng.IntN(60) {
		n := w.node(at)
		v, _ := w.ask(rng, n, c, p)
		switch {
		case v.Outcome == guard.Admitted:
			admitted = time.Now()
		case v.Outcome == guard.Released && w.faults == 0:
			if had := released.Sub(admitted); time.Since(released) > had+4*latency {
				w.wrong("%s had a slot for %v and passes %v after it", user, had, time.Since(released))
			}
			if passed != released && released.Sub(passed) < p.TTL-4*latency {
				w.wrong("%s passes without a slot, and did so %v before", user, released.Sub(passed))
			}
			passed = released
		}
		if rng.IntN(4) == 0 {
			n.link.pause(time.Microsecond)
			if found, _ := n.Release(context.Background(), user, c.ID, p); found {
				released = time.Now()
			}
		}
		time.Sleep(time.Duration(rng.Int64N(int64(2 * time.Second))))
		if w.over() {
			break
		}
	}
	time.Sleep(silence)
}

// lingering plays on at the last moment before others may have the slot, for
// which they wait.
func (w *world) lingering(rng *rand.Rand, user string) {
	p := w.policyOf(user)
	p.Limit, p.Interval, p.TTL = 1, 20*time.Second, 30*time.Second
	claims := make([]guard.Claim, 4)
	for i := range claims {
		claims[i] = guard.Claim{User: user, ID: newID(rng, user)}
	}
	n := w.node(0)
	w.ask(rng, n, claims[0], p)
	asked := time.Now()
	claims[0].Named = true
	time.Sleep(p.TTL - muchOfIt - time.Since(asked))
	var others sync.WaitGroup
	for i, c := range claims[1:] {
		its := another(rng)
		others.Go(func() {
			time.Sleep(time.Duration(i) * time.Microsecond)
			for time.Since(asked) < p.TTL+muchOfIt {
				w.ask(its, w.node(1), c, p)
				time.Sleep(100 * time.Millisecond)
			}
		})
	}
	time.Sleep(time.Duration(rng.Int64N(int64(muchOfIt))))
	w.ask(rng, n, claims[0], p)
	others.Wait()
	time.Sleep(p.TTL + muchOfIt)
}

// sharing is a viewer whose requests do not all have a name, until he stops, is
// stopped, or has gone.
func (w *world) sharing(rng *rand.Rand, user string) {
	p := w.policyOf(user)
	p.Limit = 1
	c := guard.Claim{User: user, ID: newID(rng, user), Stream: fmt.Sprint("movie", rng.Uint64()), Client: 1, Named: true}
	lost := c
	lost.ID, lost.Named, lost.Nameless = newID(rng, user), false, true
	w.mu.Lock()
	w.viewers[lost.ID] = c.ID
	w.mu.Unlock()
	begins := c
	media := []guard.Claim{lost}
	at := []int{rng.IntN(len(w.nodes))}
	kept := true // by the requests without a name
	switch rng.IntN(5) {
	case 0: // a page that does not know the stream yet
		begins.Named, begins.Anew, begins.Stream = false, true, ""
	case 1: // a manifest that stands in
		begins.Named, begins.Anew = false, true
	case 2: // some have the token
		media = append(media, c, looking(c))
	case 3: // nothing has a name
		begins = lost
	case 4: // only the first has the token
		kept = false
	}
	if rng.IntN(2) == 0 {
		at = append(at, (at[0]+1)%len(w.nodes))
	}
	var (
		passed [len(w.nodes)]struct {
			node  *simNode
			lives [3]life
		}
		revoked bool
	)
	for n := range 30 {
		which, where := rng.IntN(len(media)), at[rng.IntN(len(at))]
		ask, node, its := media[which], w.node(where), &passed[where]
		if n == 0 {
			ask, where = begins, at[0]
			node = w.node(where)
		}
		if its.node != node {
			its.node, its.lives = node, [3]life{}
		}
		v, err := w.ask(rng, node, ask, p)
		if !v.Outcome.Pass() || err != nil {
			if n == 0 {
				break
			}
			w.mu.Lock()
			held := w.faults == 0 && w.holds(c)
			w.mu.Unlock()
			if !revoked && !w.mayBeClosed(c.ID) && !w.mayBeClosed(lost.ID) && (held || kept && its.lives[which].goesOn(w) && !w.lost(ask, node, node) && !w.lost(c, node, node)) {
				w.wrong("%s, who plays %v, is refused %v: %v, %v", user, c.ID, ask.ID, v.Outcome, err)
			}
			break
		}
		if v.Outcome == guard.Vacant || v.Outcome == guard.Released { // he has no slot
			clear(passed[:])
			w.plays(user, c.ID, p.Limit, false)
		} else {
			if n > 0 {
				its.lives[which].shows(v)
			}
			w.plays(user, c.ID, p.Limit, kept && !revoked)
		}
		if n == 15 && rng.IntN(2) == 0 {
			w.revoke(rng, user, begins.ID, p)
			revoked = true // perhaps
			w.plays(user, c.ID, p.Limit, false)
		}
		w.back(user, c.ID)
		w.back(user, lost.ID)
		if rng.IntN(3) == 0 { // the connection on which he has asked this
			w.leave(rng, node, user, ask.ID)
		}
		time.Sleep(time.Duration(rng.Int64N(int64(10 * time.Second))))
		if w.over() {
			break
		}
	}
	w.plays(user, c.ID, p.Limit, false)
	time.Sleep(silence)
}

// rival wants the one slot of another viewer, and has it for a while when it is free.
func (w *world) rival(rng *rand.Rand, user string) {
	p := w.policyOf(user)
	p.Limit = 1
	c := guard.Claim{User: user, ID: newID(rng, user), Stream: fmt.Sprint("news", rng.Uint64()), Client: 2, Named: true}
	at := rng.IntN(len(w.nodes))
	for range 5 {
		if v, err := w.ask(rng, w.node(at), c, p); err == nil && v.Outcome.Pass() {
			time.Sleep(time.Duration(rng.Int64N(int64(10 * time.Second))))
			w.end(rng, user, c.ID, at)
			break
		}
		time.Sleep(time.Duration(rng.Int64N(int64(4 * time.Second))))
	}
}

// twin is one of several equal clients that want the same stream at once, of which
// one may have it. It waits to be told, and while it plays asks every few seconds.
func (w *world) twin(rng *rand.Rand) {
	const user = "twin"
	p := w.policyOf(user)
	p.Limit = 1
	c := guard.Claim{User: user, ID: newID(rng, user), Stream: "channel", Client: 5, Named: true, Patience: doubting}
	at := rng.IntN(len(w.nodes))
	begun := time.Now()
	v, err := w.ask(rng, w.node(at), anew(looking(c)), p)
	if took := time.Since(begun); w.faults == 0 && took > knownLast {
		w.wrong("a twin waits for %v", took)
	}
	var last time.Time
	if err == nil && v.Outcome.Pass() {
		for range 1 + rng.IntN(20) {
			if rng.IntN(4) == 0 {
				at = rng.IntN(len(w.nodes))
			}
			ask := c
			if rng.IntN(3) == 0 {
				ask = looking(c)
			}
			v, err := w.ask(rng, w.node(at), ask, p)
			if err != nil || !v.Outcome.Pass() {
				if w.faults == 0 && !last.IsZero() {
					w.wrong("a twin who plays is refused: %v, %v", v.Outcome, err)
				}
				break
			}
			if v.Outcome != guard.Vacant {
				last = time.Now()
				w.plays(user, c.ID, p.Limit, true)
			}
			if time.Sleep(time.Duration(rng.Int64N(int64(4500 * time.Millisecond)))); w.over() {
				break
			}
		}
	}
	w.plays(user, c.ID, p.Limit, false)
	if !last.IsZero() && rng.IntN(2) == 0 {
		w.end(rng, user, c.ID, at)
	}
	time.Sleep(time.Duration(rng.Int64N(int64(20 * time.Second))))
}

// reloading is a page that is loaded again and again, on a plan of one.
func (w *world) reloading(rng *rand.Rand) {
	const user = "reloading"
	p := w.policyOf(user)
	p.Limit = 1
	for range 5 {
		c := guard.Claim{User: user, ID: newID(rng, user), Stream: "film", Client: 6, Named: true, Patience: doubting}
		at := rng.IntN(len(w.nodes))
		begun := time.Now()
		for n, ask := range []guard.Claim{anew(looking(c)), looking(c), c, c, c} {
			v, err := w.ask(rng, w.node(at), ask, p)
			if w.faults&^lateNews == 0 && (err != nil || !v.Outcome.Pass()) {
				w.wrong("a page that was loaded again is refused: %v, %v", v.Outcome, err)
			}
			if took := time.Since(begun); n == 0 && w.faults&^lateNews == 0 && took > known {
				w.wrong("a page that was loaded again waits for %v", took)
			}
			time.Sleep(2*linger + time.Duration(rng.Int64N(int64(4*time.Second))))
			if rng.IntN(3) == 0 && n > 2 {
				time.Sleep(time.Duration(rng.Int64N(int64(20 * time.Second))))
			}
		}
		if rng.IntN(2) == 0 {
			w.leave(rng, w.node(at), user, c.ID)
		}
		if w.over() {
			break
		}
	}
	time.Sleep(silence)
}

// fighting is a page that wants the one slot, and when another has taken it tries
// once more and then starts anew, by itself.
func (w *world) fighting(rng *rand.Rand, n int) {
	const user = "fighting"
	p := w.policyOf(user)
	p.Limit, p.AtLimit = 1, guard.ReplaceOldest
	c := guard.Claim{User: user, ID: newID(rng, user), Stream: fmt.Sprint("channel", n), Client: guard.Client(n), Named: true, Patience: doubting}
	at := rng.IntN(len(w.nodes))
	ask := anew(looking(c))
	for refused := 0; !w.over(); {
		v, err := w.ask(rng, w.node(at), ask, p)
		ask = c
		if err != nil || !v.Outcome.Pass() {
			if refused++; refused > 1 {
				if refused = 0; rng.IntN(2) == 0 {
					c.ID = newID(rng, user)
				}
				ask = anew(looking(c))
			}
		}
		time.Sleep(time.Second + time.Duration(rng.Int64N(int64(3*time.Second))))
	}
}

// failing starts playbacks of which nothing is delivered, each in some requests at
// once, and sees whether what they replaced goes on.
func (w *world) failing(rng *rand.Rand) {
	user := fmt.Sprint("failing", rng.Uint64())
	p := w.policyOf(user)
	p.Limit, p.AtLimit = 1, guard.ReplaceOldest
	plays := guard.Claim{User: user, ID: newID(rng, user), Stream: "plays", Named: true}
	other := w.node(rng.IntN(len(w.nodes)))
	for range 5 {
		p.AtLimit = guard.ReplaceOldest
		w.ask(rng, other, anew(plays), p)
		if rng.IntN(2) == 0 { // what fails takes his slot when he has left
			p.AtLimit = guard.Reject
			w.leave(rng, other, user, plays.ID)
			time.Sleep(hangUp + time.Second)
		}
		time.Sleep(time.Duration(rng.Int64N(int64(10 * time.Second))))
		node, calm := w.node(rng.IntN(len(w.nodes))), w.faults == 0 || w.calm.Load()
		c := guard.Claim{User: user, ID: newID(rng, user), Stream: "fails", Named: true}
		if rng.IntN(3) == 0 {
			c.Named, c.Nameless = false, true
		}
		var all sync.WaitGroup
		together := time.Duration(rng.IntN(2)) * 6 * latency // then the first fails when all have begun
		for range 1 + rng.IntN(4) {
			its := another(rng)
			all.Go(func() {
				time.Sleep(time.Duration(its.Int64N(int64(4 * latency))))
				_, trial, _ := w.begin(context.Background(), its, node, c, p)
				time.Sleep(together + time.Duration(its.Int64N(int64(3*time.Second))))
				trial.End(false)
			})
		}
		all.Wait()
		if w.mu.Lock(); calm && together > 0 && w.holds(c) {
			w.wrong("%s delivers nothing and has its slot", c.ID)
		}
		w.mu.Unlock()
		if time.Sleep(denialTime + newsTake); w.over() {
			break
		}
		if v, err := w.ask(rng, other, plays, p); calm && together > 0 && (err != nil || !v.Outcome.Pass()) {
			w.wrong("what was replaced in vain is refused: %v, %v", v.Outcome, err)
		}
	}
	time.Sleep(silence)
}

func (w *world) losses() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.store.losses
}

func (l *link) setCut(cut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = cut
}
