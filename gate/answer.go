package gate

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/streamguard/streamguard/guard"
)

// answer is what a passage is answered with, while that is being sent. One that
// lasts keeps its guard alive, and an endless one ends with its guard.
//
// Answers are linked in a table of their store's. A short one costs the locks for
// that and nothing else: twice a second one goroutine goes through the table, as long
// as anything is in it, and only what it has met before is kept alive.
type answer struct {
	part       *answers // nil of one that is not in the table
	prev, next *Passage
	met        int    // how often, since its header was sent
	release    func() // gives back the store, nil as long as it does not hold it
	sender     Sender

	mu      sync.Mutex // also of the passage's claim, from when the header is sent
	sent    bool       // its header is
	endless bool       // as far as anybody can say so far
	begun   bool       // and its guard is known as one of such an answer, or is about to be
	lasts   bool       // so it is, and counted with the others of its playback
	asksAt  int        // at which meeting the store may be asked again
	over    bool       // its guard has ended
	done    bool       // it is not being sent any more,
	short   bool       // was whole, and has not lasted

	cut    atomic.Bool
	sealed sync.Mutex // of what follows
	ended  bool
}

// Sender sends an answer to its client.
type Sender interface {
	// Unsend has a write fail, also one that is under way. It is called again and again
	// from when an answer without a length is cut until it is Answered.
	Unsend()
	// Met is called as often as an answer that lasts is met.
	Met()
}

// answers is a part of the table.
type answers struct {
	mu    sync.Mutex
	first *Passage
	_     [48]byte // no line of the CPU's cache has two
}

const (
	cutEvery   = 100 * time.Millisecond
	longEnough = 3  // meetings after which an answer has lasted for a second
	askAgain   = 4  // meetings after which the store is asked again about what it does not keep
	asksAtOnce = 64 // calls in the name of answers
)

var meetEvery = guard.Paced(time.Second / 2) // how often answers are met

// whose is who has answers that last.
type whose struct {
	user   string
	client guard.Client
}

// sending is the table.
type sending struct {
	parts [64]answers
	size  atomic.Int64
	swept atomic.Bool // there is a goroutine for it
	asks  atomic.Int64

	mu    sync.Mutex
	lasts map[guard.ID]int // endless answers that have lasted, by their playback,
	whose map[whose]int    // and by their client
}

func (s *sending) part(id guard.ID) *answers { return &s.parts[int(id[0])%len(s.parts)] }

func (s *answers) enter(p *Passage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.answer.part, p.answer.next = s, s.first
	if s.first != nil {
		s.first.answer.prev = p
	}
	s.first = p
}

func (s *answers) leave(p *Passage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := &p.answer
	if a.prev != nil {
		a.prev.answer.next = a.next
	} else {
		s.first = a.next
	}
	if a.next != nil {
		a.next.answer.prev = a.prev
	}
}

// sends reports whether an answer with a length is being sent of a playback.
func (s *answers) sends(id guard.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for p := s.first; p != nil; p = p.answer.next {
		p.answer.mu.Lock()
		is := p.claim.ID == id && p.answer.sent && !p.answer.endless
		p.answer.mu.Unlock()
		if is && p.request.HTTP.Context().Err() == nil {
			return true
		}
	}
	return false
}

// Answers says that the request for media is being answered, until it is Answered.
func (p *Passage) Answers(sender Sender) {
	if !p.counted {
		return
	}
	p.answer.sender = sender
	s := p.gate.sending
	s.part(p.claim.ID).enter(p)
	s.size.Add(1)
	if !s.swept.Load() && !s.swept.Swap(true) {
		go s.sweep(p.gate.Keeper.Closed())
	}
}

// Sends says that the answer's header is on its way.
func (p *Passage) Sends() {
	p.answer.mu.Lock()
	p.answer.sent = true
	p.answer.mu.Unlock()
}

// SendsOn is Sends for an answer that says no length.
func (p *Passage) SendsOn() {
	a := &p.answer
	if a.part == nil {
		return
	}
	endless := !p.isLed()
	a.mu.Lock()
	a.sent, a.endless = true, endless
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
	lasted := time.Duration(a.met)*meetEvery >= p.request.Policy.Interval/3
	a.mu.Lock()
	a.done, a.short = true, whole && !hungUp && !lasted
	claim, endless := p.claim, a.endless
	a.mu.Unlock()
	if claim.Long {
		p.ID = claim.ID
	}
	if a.lasts {
		p.gate.sending.count(p, claim.ID, -1)
	}
	switch cut = a.cut.Load(); {
	case !endless || cut:
	case hungUp || lasted:
		p.leaves(&claim, a.release)
		return cut
	case a.short:
		p.wasShort(&claim)
	}
	if a.release != nil {
		a.release()
	}
	return cut
}

// sweep goes through the table twice a second, until there is nothing in it.
func (s *sending) sweep(closed <-chan struct{}) {
	tick := time.NewTicker(meetEvery)
	defer tick.Stop()
	var found []due
	for {
		select {
		case <-tick.C:
		case <-closed:
			return
		}
		for i := range s.parts {
			found = s.parts[i].meet(found[:0])
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
	begins bool // it has lasted, and is endless
	waits  bool // the store is not to be asked now
}

// meet returns the answers of a part that last.
func (s *answers) meet(found []due) []due {
	s.mu.Lock()
	defer s.mu.Unlock()
	for p := s.first; p != nil; p = p.answer.next {
		a := &p.answer
		a.mu.Lock()
		if a.sent {
			a.met++
		}
		if a.met >= longEnough && !a.over {
			d := due{Passage: p, claim: p.claim, policy: p.judgedBy(), begins: a.endless && !a.begun, waits: a.met < a.asksAt}
			a.begun = a.endless
			found = append(found, d)
		}
		a.mu.Unlock()
		if a.met >= longEnough {
			p.hold()
			a.sender.Met()
		}
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
	_, trial, known := d.gate.Keeper.Known(&d.claim, &d.policy)
	if d.policy.Observe {
		d.gate.goesOn(d.request, d.claim.ID)
	}
	if trial.End(true); known && !d.begins {
		return
	}
	asks := &d.gate.sending.asks
	switch {
	case d.waits:
	case asks.Add(1) > asksAtOnce: // at the next meeting, then
		asks.Add(-1)
		d.answer.mu.Lock()
		d.answer.begun = d.answer.begun && !d.begins
		d.answer.mu.Unlock()
	default:
		go func(d due) {
			defer asks.Add(-1)
			if known {
				d.begin()
			} else {
				d.ask()
			}
		}(*d)
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
	if !a.ended {
		a.sender.Unsend()
	}
	return !a.ended
}

// count counts the endless answers that have lasted.
func (s *sending) count(p *Passage, id guard.ID, more int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lasts == nil {
		s.lasts, s.whose = make(map[guard.ID]int), make(map[whose]int)
	}
	who := whose{p.request.User, p.request.Client}
	if s.lasts[id] += more; s.lasts[id] == 0 {
		delete(s.lasts, id)
	}
	if s.whose[who] += more; s.whose[who] == 0 {
		delete(s.whose, who)
	}
}

// last reports whether an endless answer of a playback is being sent.
func (s *sending) last(id guard.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lasts[id] > 0
}

// lastOf reports whether one of a client is.
func (s *sending) lastOf(who whose) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.whose[who] > 0
}
