package gate

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/streamguard/streamguard/guard"
)

// answer is what a passage is answered with, while that is being sent. One that
// lasts keeps its guard alive, and an endless one ends with its guard.
//
// Answers are linked in a table of their store's. A short one costs the two locks for
// that and nothing else: once a second one goroutine goes through the table, as long
// as anything is in it, and only what it meets for the second time is kept alive.
type answer struct {
	part       *answers // nil of one that is not in the table
	prev, next *Passage
	met        int    // how often
	release    func() // gives back the store, nil as long as it does not hold it

	mu      sync.Mutex // also of the passage's claim
	sent    bool       // its header is
	endless bool       // as far as anybody can say so far
	asksAt  int        // at which meeting the store may be asked again
	over    bool       // its guard has ended

	cut    atomic.Bool
	sealed sync.Mutex // of what follows
	ended  bool
	unsend func() // has a write fail that is under way
}

// answers is a part of the table.
type answers struct {
	mu    sync.Mutex
	first *Passage
	_     [48]byte // no line of the CPU's cache has two
}

const (
	cutEvery   = 100 * time.Millisecond
	askAgain   = 2  // meetings after which the store is asked again about what it does not keep
	asksAtOnce = 64 // calls in the name of answers
)

var meetEvery = guard.Paced(time.Second) // how often answers are met

// sending is the table.
type sending struct {
	parts [64]answers
	size  atomic.Int64
	swept atomic.Bool // there is a goroutine for it
	asks  atomic.Int64
}

func (s *sending) part(id guard.ID) *answers { return &s.parts[int(id[0])%len(s.parts)] }

func (s *answers) enter(p *Passage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.answer.part, p.answer.prev, p.answer.next = s, nil, s.first
	if s.first != nil {
		s.first.answer.prev = p
	}
	s.first = p
}

func (s *answers) leave(p *Passage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := &p.answer; a.prev != nil {
		a.prev.answer.next = a.next
	} else {
		s.first = a.next
	}
	if a := &p.answer; a.next != nil {
		a.next.answer.prev = a.prev
	}
}

// Answers says that the request is being answered, until it has Answered.
func (p *Passage) Answers() {
	if !p.counted {
		return
	}
	s := p.gate.sending
	s.part(p.claim.ID).enter(p)
	s.size.Add(1)
	if !s.swept.Load() && !s.swept.Swap(true) {
		go s.sweep()
	}
}

// Sends says that the answer's header is on its way. unsend has a write fail that is
// under way: it is called again and again from when the answer is cut.
func (p *Passage) Sends(unsend func()) {
	a := &p.answer
	a.sealed.Lock()
	a.unsend = unsend
	a.sealed.Unlock()
	a.mu.Lock()
	a.sent = true
	a.mu.Unlock()
}

// IsCut reports whether the answer is to end now.
func (p *Passage) IsCut() bool { return p.answer.cut.Load() }

// Answered says that the answer is over, and whether it is whole, or the client has
// hung up in the middle of it. It reports whether it was cut: then its connection is
// good for nothing more.
func (p *Passage) Answered(whole, hungUp bool) (cut bool) {
	a := &p.answer
	if a.part == nil {
		return false
	}
	a.part.leave(p)
	p.gate.sending.size.Add(-1)
	a.sealed.Lock()
	a.ended = true
	a.sealed.Unlock()
	switch cut = a.cut.Load(); {
	case !a.endless || cut:
	case hungUp || time.Duration(a.met)*meetEvery >= p.request.Policy.Interval/3:
		p.closeSoon()
	case whole:
		p.wasShort()
	}
	if a.release != nil {
		a.release()
	}
	return cut
}

// sweep goes through the table once a second, until there is nothing in it.
func (s *sending) sweep() {
	tick := time.NewTicker(meetEvery)
	defer tick.Stop()
	var found []due
	for range tick.C {
		for i := range s.parts {
			found = s.parts[i].look(found[:0])
			for j := range found {
				found[j].keep()
			}
			clear(found)
		}
		if s.size.Load() > 0 {
			continue
		}
		s.swept.Store(false)
		if s.size.Load() == 0 || s.swept.Swap(true) { // unless one has come just now
			return
		}
	}
}

// due is an answer whose guard is to be kept alive.
type due struct {
	*Passage
	claim  guard.Claim
	policy guard.Policy
	waits  bool // the store is not to be asked now
}

// look meets the answers of a part, and returns those that last.
func (s *answers) look(found []due) []due {
	s.mu.Lock()
	defer s.mu.Unlock()
	for p := s.first; p != nil; p = p.answer.next {
		a := &p.answer
		if a.met++; a.met == 1 { // it may have come just now
			continue
		}
		p.hold()
		a.mu.Lock()
		if a.sent && !a.over {
			d := due{Passage: p, claim: p.claim, policy: p.request.Policy, waits: a.met < a.asksAt}
			if p.request.Mode == Observe {
				d.policy = Observed(d.policy)
			}
			found = append(found, d)
		}
		a.mu.Unlock()
	}
	return found
}

// hold keeps the store open that the answer's gate decides by.
func (p *Passage) hold() {
	if p.answer.release == nil && p.gate.Hold != nil {
		p.answer.release = p.gate.Hold()
	}
}

// HoldAnswers has each answer that is under way hold the gate's store, which the gate
// is about to give back.
func (g *Gate) HoldAnswers() {
	for i := range g.sending.parts {
		s := &g.sending.parts[i]
		s.mu.Lock()
		for p := s.first; p != nil; p = p.answer.next {
			if p.gate == g {
				p.hold()
			}
		}
		s.mu.Unlock()
	}
}

// keep is a sign of life, like a request.
func (d *due) keep() {
	if _, trial, ok := d.gate.Keeper.Known(&d.claim, &d.policy); ok {
		trial.End(true)
		return
	}
	asks := &d.gate.sending.asks
	if d.waits {
		return
	}
	if asks.Add(1) > asksAtOnce { // in a second, then
		asks.Add(-1)
		return
	}
	go func(d due) {
		defer asks.Add(-1)
		d.ask()
	}(*d)
}

// ask has the store decide about a playback that this node does not know any more. If
// it may not go on, its answer is over.
func (d *due) ask() {
	v, trial, err := d.gate.Keeper.Ask(context.Background(), d.claim, d.policy)
	trial.End(true)
	a := &d.answer
	a.mu.Lock()
	switch {
	case err != nil || v.Outcome == guard.Admitted || v.Outcome == guard.Refreshed:
	case v.Outcome.Pass() || d.policy.Observe:
		a.asksAt = a.met + askAgain
	default:
		a.over = true
	}
	ends := a.over && a.endless
	a.mu.Unlock()
	if ends {
		a.end()
	}
}

// end cuts the answer: no more of it is written, and a write that is under way fails.
func (a *answer) end() {
	if a.cut.Swap(true) {
		return
	}
	tick := time.NewTicker(cutEvery)
	defer tick.Stop()
	for ; a.unsends(); <-tick.C {
	}
}

func (a *answer) unsends() (goesOn bool) {
	a.sealed.Lock()
	defer a.sealed.Unlock()
	if !a.ended && a.unsend != nil {
		a.unsend()
	}
	return !a.ended
}

// isSent reports whether an endless answer of a playback is under way.
func (t *sending) isSent(id guard.ID) bool {
	s := t.part(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	for p := s.first; p != nil; p = p.answer.next {
		p.answer.mu.Lock()
		is := p.claim.ID == id && p.answer.endless
		p.answer.mu.Unlock()
		if is {
			return true
		}
	}
	return false
}
