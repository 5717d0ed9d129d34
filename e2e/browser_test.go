package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// browser is the one Chromium of all tests, driven by browser/driver.mjs.
type browser struct {
	cmd   *exec.Cmd
	calls io.WriteCloser
	said  bytes.Buffer // once it has ended

	mu      sync.Mutex
	last    int // id that was given to a call or a tab
	waiting map[int]chan reply
}

// reply is what the driver answers to a call.
type reply struct {
	ID    int             `json:"id"`
	Value json.RawMessage `json:"value"`
	Error string          `json:"error"`
}

var chromium = sync.OnceValues(func() (*browser, error) {
	binary, err := exec.LookPath("chromium")
	if err != nil {
		return nil, fmt.Errorf("chromium is needed (make setup): %w", err)
	}
	b := &browser{cmd: exec.Command("node", "browser/driver.mjs", binary), waiting: make(map[int]chan reply)}
	b.cmd.Stderr = &b.said
	if b.calls, err = b.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	replies, err := b.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := b.cmd.Start(); err != nil {
		return nil, fmt.Errorf("node is needed (make setup): %w", err)
	}
	go b.receive(replies)
	launched = b
	return b, nil
})

var launched *browser // by chromium

func (b *browser) quit() {
	b.calls.Close()
	b.cmd.Wait()
}

func (b *browser) receive(replies io.Reader) {
	lines := json.NewDecoder(bufio.NewReader(replies))
	for {
		var r reply
		if err := lines.Decode(&r); err != nil {
			break
		}
		b.mu.Lock()
		b.waiting[r.ID] <- r
		delete(b.waiting, r.ID)
		b.mu.Unlock()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, answer := range b.waiting {
		answer <- reply{ID: id, Error: "the driver has ended"}
	}
	b.waiting = nil
}

func (b *browser) nextID() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.last++
	return b.last
}

// call has the driver do something to a tab.
func (b *browser) call(tab int, call string, args ...any) (json.RawMessage, error) {
	id := b.nextID()
	answer := make(chan reply, 1)
	line, err := json.Marshal(map[string]any{"id": id, "call": call, "tab": tab, "args": append([]any{}, args...)})
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	if b.waiting == nil {
		b.mu.Unlock()
		return nil, fmt.Errorf("%s: the driver has ended", call)
	}
	b.waiting[id] = answer
	_, err = b.calls.Write(append(line, '\n'))
	b.mu.Unlock()
	if err != nil {
		return nil, err
	}
	select {
	case r := <-answer:
		if r.Error != "" {
			return nil, fmt.Errorf("%s: %s", call, r.Error)
		}
		return r.Value, nil
	case <-time.After(patience):
		return nil, fmt.Errorf("%s: no answer", call)
	}
}

// tab is a page of browser/page.html with one player.
type tab struct {
	browser *browser
	id      int
}

// openTab opens the page of a player, as a user on a device who has no other tab.
func openTab(t *testing.T, page, user string) *tab {
	t.Helper()
	return newTab(t, "open", page, map[string]string{"user": user})
}

// beside opens another tab of the same user.
func (p *tab) beside(t *testing.T, page string) *tab {
	t.Helper()
	return newTab(t, "openBeside", page, p.id)
}

func newTab(t *testing.T, call, page string, more ...any) *tab {
	t.Helper()
	b, err := chromium()
	if err != nil {
		t.Fatal(err)
	}
	p := &tab{b, b.nextID()}
	t.Cleanup(func() {
		if t.Failed() {
			said, _ := b.call(p.id, "log")
			state, _ := b.call(p.id, "run", "state")
			t.Logf("the page says %s, and shows %s", said, state)
		}
		b.call(p.id, "quit")
	})
	p.do(t, call, append([]any{page}, more...)...)
	return p
}

// do has the driver do something to the tab.
func (p *tab) do(t *testing.T, call string, args ...any) json.RawMessage {
	t.Helper()
	value, err := p.browser.call(p.id, call, args...)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// run calls a function of browser/page.mjs.
func (p *tab) run(t *testing.T, function string, args ...any) {
	t.Helper()
	p.do(t, "run", append([]any{function}, args...)...)
}

// state is what a page shows.
type state struct {
	Time     float64   `json:"time"`   // of the video
	Played   float64   `json:"played"` // seconds of it, without what was jumped over
	Height   int       `json:"height"`
	Refusals []refusal `json:"refusals"`

	Interruptions int `json:"interruptions"` // by interstitials, that are over
}

// refusal is a problem as it reached the page, with what it tells the viewer.
type refusal struct {
	Status     int     `json:"status"`
	ErrorCode  string  `json:"errorCode"`
	Limit      int     `json:"limit"`
	Guards     []guard `json:"guards"`
	RetryAfter int     `json:"retryAfter"`
	Reason     string  `json:"reason"`
}

func (p *tab) state(t *testing.T) (s state) {
	t.Helper()
	if err := json.Unmarshal(p.do(t, "run", "state"), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// plays waits until a second more of the video has been played.
func (p *tab) plays(t *testing.T) {
	t.Helper()
	began := p.state(t)
	from := began.Played
	eventually(t, "the video goes on", func() bool {
		now := p.state(t)
		if len(now.Refusals) > len(began.Refusals) {
			t.Fatalf("a playback was refused: %+v", now.Refusals)
		}
		from = min(from, now.Played) // another video begins
		return now.Played > from+1
	})
}

// refused waits until the page has been refused so many times, and insists on a
// reason each time.
func (p *tab) refused(t *testing.T, times, held int) {
	t.Helper()
	var s state
	eventually(t, "the page is refused", func() bool {
		s = p.state(t)
		return len(s.Refusals) >= times
	})
	if len(s.Refusals) > times || s.Time > 0 {
		t.Errorf("the page shows %+v, want that it was refused %d times", s, times)
	}
	for _, r := range s.Refusals {
		if r.Status != 429 || r.ErrorCode != "REACHED_MAX_GUARDS_COUNT" || r.Limit != held || len(r.Guards) != held || r.RetryAfter < 1 || r.Reason == "" || strings.Contains(r.Reason, "undefined") {
			t.Errorf("the page shows %+v, want the reason for a 429 with %d guards in the way", r, held)
		}
	}
}

// holds insists on how many guards a user has.
func (n *node) holds(t *testing.T, user string, guards int) {
	t.Helper()
	if held := n.guards(t, user); len(held.Guards) != guards {
		t.Fatalf("%s holds %+v, want %d guards", user, held, guards)
	}
}
