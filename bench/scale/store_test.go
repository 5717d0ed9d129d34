package scale

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/streamguard/streamguard/guard"
)

// What Redis is asked, by what it costs there.
const (
	start   = iota // a guard is created, or it is found that there is one
	refresh        // behind the back of a request
	restore        // the same, but the guard was lost
	refusal
	release
	verbs
)

var verbNames = [verbs]string{"start", "refresh", "restore", "refusal", "release"}

// load is what all gates ask of Redis in a second.
type load struct {
	requests, trips int // of players, and round trips of refreshes
	calls           [verbs]int
	in, out         int // bytes at Redis
}

func (l *load) all() (n int) {
	for _, calls := range l.calls {
		n += calls
	}
	return n
}

// counter is a store that answers at once and counts what Redis would be asked,
// to the byte.
type counter struct {
	mu      sync.Mutex
	begun   time.Time
	ledgers map[string]*guard.Ledger
	seconds []load
}

// now is the second that is counted. The lock is held.
func (s *counter) now() *load {
	n := int(time.Since(s.begun) / time.Second)
	for len(s.seconds) <= n {
		s.seconds = append(s.seconds, load{})
	}
	return &s.seconds[n]
}

func (s *counter) ledger(user string) *guard.Ledger {
	if s.ledgers[user] == nil {
		s.ledgers[user] = new(guard.Ledger)
	}
	return s.ledgers[user]
}

const (
	sha     = "0123456789012345678901234567890123456789"
	prefix  = "sg:"
	channel = "ended:sg:"
)

// bulk is the length of a string in Redis' protocol, number of an integer.
func bulk(n int) int   { return 1 + len(strconv.Itoa(n)) + 2 + n + 2 }
func number(n int) int { return 1 + len(strconv.Itoa(n)) + 2 }
func list(n int) int   { return number(n) }

const milliseconds = 1_700_000_000_000 // as long as any these days

func (s *counter) Acquire(_ context.Context, c guard.Claim, p guard.Policy) (guard.Verdict, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ledger := s.now(), s.ledger(c.User)
	v := ledger.Acquire(time.Now().Truncate(time.Millisecond), c, p)
	verb := start
	switch {
	case v.Outcome == guard.Rejected:
		verb = refusal
	case c.Intent == guard.Resume && v.Outcome == guard.Admitted:
		verb = restore
	case c.Intent == guard.Resume:
		verb = refresh
	}
	l.calls[verb]++
	rules := p.AllRules()
	l.in += list(3+1+11+3*len(rules)) + bulk(len("evalsha")) + bulk(len(sha)) + bulk(1) + bulk(len(prefix)+len(c.User)) +
		bulk(len(c.ID)) + bulk(len(c.Stream)) + bulk(len(c.Device)) + bulk(len(c.Labels)) + bulk(1) +
		bulk(len(strconv.Itoa(int(p.Interval.Milliseconds())))) + bulk(len(strconv.Itoa(int(p.TTL.Milliseconds())))) +
		bulk(len(strconv.Itoa(int(c.Alone.Milliseconds())))) + bulk(1) + bulk(1) + bulk(len(channel))
	for _, r := range rules {
		l.in += bulk(len(r.Per)) + bulk(len(strconv.Itoa(r.Limit))) + bulk(1)
	}
	records := 0 // that the answer has
	for _, g := range append(v.InTheWay, v.Guard) {
		if g.ID != (guard.ID{}) {
			records += 41 + len(g.Stream) + len(g.Device) + len(g.Labels)
		}
	}
	l.out += list(4) + number(int(v.Outcome)) + number(milliseconds) + number(v.Held) + bulk(records)
	if verb == refusal {
		l.out += number(int(v.FreeIn.Milliseconds())) + number(1) + number(v.Blocking)
	}
	return v, nil
}

// AcquireAll implements guard.Batcher.
func (s *counter) AcquireAll(ctx context.Context, requests []guard.Request) []guard.Answer {
	answers := make([]guard.Answer, len(requests))
	for i, r := range requests {
		answers[i].Verdict, answers[i].Err = s.Acquire(ctx, r.Claim, r.Policy)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now().trips++
	return answers
}

func (s *counter) Release(_ context.Context, user string, id guard.ID, p guard.Policy) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.now()
	l.calls[release]++
	l.in += list(6) + bulk(len("evalsha")) + bulk(len(sha)) + bulk(1) + bulk(len(prefix)+len(user)) +
		bulk(len(id)) + bulk(len(strconv.Itoa(int(p.TTL.Milliseconds())))) + bulk(len(channel))
	l.out += number(1)
	return s.ledger(user).Release(time.Now().Truncate(time.Millisecond), id, p), nil
}

func (s *counter) Refresh(context.Context, string, guard.ID, guard.Policy) (guard.Verdict, error) {
	panic("media requests never call it")
}

func (s *counter) Revoke(context.Context, string, guard.ID, guard.Policy) (bool, error) {
	panic("media requests never call it")
}

func (s *counter) CloseGuard(context.Context, string, guard.ID) (bool, error) {
	panic("no connection is closed")
}

func (s *counter) Undo(context.Context, string, guard.ID, []guard.ID) (bool, error) {
	panic("all requests are delivered")
}

func (s *counter) List(context.Context, string) ([]guard.Guard, error) {
	panic("media requests never call it")
}

// size is how many guards and marks there are.
func (s *counter) size() (guards, marks int) {
	for _, l := range s.ledgers {
		n := len(l.List(time.Now()))
		guards += n
		marks += l.Len() - n
	}
	return guards, marks
}

func (s *counter) flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.ledgers)
}
