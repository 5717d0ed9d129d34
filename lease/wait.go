package lease

import (
	"slices"
	"strings"
	"sync"

	"github.com/streamguard/streamguard/guard"
)

// MaxWaiting is how many starts wait at once until it is known whether a doubted
// guard is over. One more is refused, as is one of a user of whom as many wait as
// may play.
const MaxWaiting = 1000

// waiting is who waits, and for news of which guards.
type waiting struct {
	mu     sync.Mutex
	starts map[guard.ID]*start
	users  map[string]int
	guards map[guard.ID][]*start
}

// start is one playback that waits, in however many requests.
type start struct {
	requests int
	inTheWay []guard.ID
	news     chan struct{} // closed by news of one of those, and made anew
}

func newWaiting() *waiting {
	return &waiting{starts: make(map[guard.ID]*start), users: make(map[string]int), guards: make(map[guard.ID][]*start)}
}

// Wait enters a start that is in doubt. news returns a channel that is closed when
// something has become of a guard that is in its way. It is not ok where too many wait.
func (k *Keeper) Wait(c *guard.Claim, v *guard.Verdict) (news func() <-chan struct{}, leave func(), ok bool) {
	w := k.waiting
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.starts[c.ID]
	if s == nil {
		if len(w.starts) >= MaxWaiting || w.users[c.User] >= v.Limit {
			return nil, nil, false
		}
		s = &start{news: make(chan struct{})}
		for _, g := range v.InTheWay {
			s.inTheWay = append(s.inTheWay, g.ID)
			w.guards[g.ID] = append(w.guards[g.ID], s)
		}
		w.starts[c.ID] = s
		w.users[strings.Clone(c.User)]++
	}
	s.requests++
	news = func() <-chan struct{} {
		w.mu.Lock()
		defer w.mu.Unlock()
		return s.news
	}
	id, user := c.ID, c.User
	return news, func() { w.leave(id, user, s) }, true
}

func (w *waiting) leave(id guard.ID, user string, s *start) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s.requests--; s.requests > 0 {
		return
	}
	delete(w.starts, id)
	if w.users[user]--; w.users[user] == 0 {
		delete(w.users, user)
	}
	for _, g := range s.inTheWay {
		w.guards[g] = slices.DeleteFunc(w.guards[g], func(other *start) bool { return other == s })
		if len(w.guards[g]) == 0 {
			delete(w.guards, g)
		}
	}
}

// tell wakes who waits for news of a guard.
func (w *waiting) tell(id guard.ID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.guards[id] {
		close(s.news)
		s.news = make(chan struct{})
	}
}
