package audience

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/streamguard/streamguard/guard"
)

var noon = time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)

// room is an audience with what a store would have told of its guards.
type room struct {
	*Audience
	policy guard.Policy
	held   map[string][]guard.Guard
}

func newRoom(limit int) *room {
	return &room{New(), guard.Policy{Limit: limit, Interval: time.Minute, TTL: 90 * time.Second}, make(map[string][]guard.Guard)}
}

// start has a user begin a playback at so many seconds after noon.
func (r *room) start(user, id string, at float64) guard.Verdict {
	now := noon.Add(time.Duration(at * float64(time.Second)))
	c := guard.Claim{User: user, ID: guard.DeriveID(user, "", id), Stream: id}
	v := r.Start(&Start{At: now, Claim: c, Policy: r.policy, Beside: r.held[user]})
	r.held[user] = append(r.held[user], guard.Guard{ID: c.ID, User: user, Stream: id, CreatedAt: now, ExpiresAt: now.Add(time.Hour), RemovedAt: now.Add(time.Hour)})
	return v
}

func (r *room) ask(user, id string, at float64, name string) {
	r.Request(&Request{At: noon.Add(time.Duration(at * float64(time.Second))), User: user, ID: guard.DeriveID(user, "", id), Stream: id, Name: []byte(name), TTL: r.policy.TTL})
}

func (r *room) report(t *testing.T) Report {
	t.Helper()
	report, ok := r.Report()
	if !ok {
		t.Fatal("nobody has watched")
	}
	return report
}

// What a limit refuses holds no slot under that limit, and one under the others.
func TestRefusedHoldsNoSlot(t *testing.T) {
	r := newRoom(1)
	for n, id := range []string{"a", "b", "c"} {
		if v := r.start("alice", id, float64(n)); v.Outcome.Pass() != (n == 0) {
			t.Errorf("start %d: %v", n, v.Outcome)
		}
	}
	r.held["alice"] = r.held["alice"][1:] // a is over: under a limit of 1 there is room, for b was refused
	if v := r.start("alice", "d", 10); !v.Outcome.Pass() {
		t.Errorf("who was refused stands in the way: %v", v.Outcome)
	}
	got := r.report(t)
	for n, want := range []int64{2, 1, 0} { // with 1: b and c; with 2: c, and d finds b; with 3: d finds b and c
		if got.Limits[n].Outcome.Playbacks != want {
			t.Errorf("limit %d would have refused %d, want %d", n+1, got.Limits[n].Outcome.Playbacks, want)
		}
	}
	if got.Configured.Playbacks != 2 || got.Configured.Users != 1 || got.Playbacks != 4 {
		t.Errorf("%+v of %d", got.Configured, got.Playbacks)
	}
}

// What is replaced holds no slot either.
func TestReplaced(t *testing.T) {
	r := newRoom(1)
	r.policy.AtLimit = guard.ReplaceOldest
	for n, id := range []string{"a", "b", "c"} {
		if v := r.start("alice", id, float64(n)); !v.Outcome.Pass() || len(v.Replaced) != min(n, 1) {
			t.Errorf("start %d: %v, replaces %d", n, v.Outcome, len(v.Replaced))
		}
	}
	if got := r.report(t); got.Configured.Replaced != 2 || got.Configured.Playbacks != 0 || got.Rules[0].Rule != "limit 1 replace" || got.Rules[0].Replaced != 2 {
		t.Errorf("%+v %+v", got.Configured, got.Rules)
	}
}

func TestAtOnce(t *testing.T) {
	r := newRoom(3)
	for _, p := range []struct {
		id       string
		from, to float64
	}{{"a", 0, 100}, {"b", 50, 80}, {"c", 80, 150}} {
		r.start("alice", p.id, p.from)
		for at := p.from; at <= p.to; at += 10 {
			r.ask("alice", p.id, at, "")
		}
	}
	r.start("bob", "a", 0)
	r.ask("bob", "a", 0, "")
	got := r.report(t)
	want := []AtOnce{{1, 2, 1, 100}, {2, 1, 0, 50}, {3, 1, 1, 0}} // c begins when b asks for the last time
	if fmt.Sprint(got.AtOnce) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", got.AtOnce, want)
	}
	if got.Top[0].User != "alice" || got.Top[0].Most != 3 || !got.Top[0].At.Equal(noon.Add(80*time.Second)) || got.Streams != 3 {
		t.Errorf("%+v, %d streams", got.Top, got.Streams)
	}
	if fmt.Sprint(got.Minutes) != fmt.Sprint([]Minute{{noon, 3}, {noon.Add(2 * time.Minute), 1}, {noon.Add(3 * time.Minute), 0}}) {
		t.Errorf("minutes %v", got.Minutes)
	}
	if again := r.report(t); fmt.Sprint(again) != fmt.Sprint(got) {
		t.Errorf("asked twice:\n%v\n%v", got, again)
	}
}

// However long somebody goes on, and whatever he starts, it is the same as if nothing
// had been forgotten meanwhile.
func TestTimeIsCountedOnTheWay(t *testing.T) {
	r := newRoom(3)
	r.start("alice", "long", 0)
	for n := range 500 {
		at := float64(200 * n)
		id := fmt.Sprint("short ", n)
		r.start("alice", id, at)
		for s := 0.0; s <= 100; s += 50 {
			r.ask("alice", id, at+s, "")
		}
		for s := 0.0; s < 200; s += 50 {
			r.ask("alice", "long", at+s, "")
		}
	}
	got := r.report(t)
	if got.AtOnce[0].Seconds != 500*100-50 || got.AtOnce[1].Seconds != 500*100 || got.Playbacks != 501 {
		t.Errorf("%+v of %d", got.AtOnce, got.Playbacks)
	}
	if n := len(r.shard("alice").users["alice"].playbacks); n > maxTogether/2 {
		t.Errorf("%d playbacks are remembered", n)
	}
}

func TestNamesOfAPlayback(t *testing.T) {
	r := newRoom(3)
	r.start("alice", "a", 0)
	for n, name := range []string{"x", "", "x", "y", "z"} {
		r.ask("alice", "a", float64(n), name)
	}
	r.start("bob", "a", 0)
	r.ask("bob", "a", 1, "x")
	if got := r.report(t); got.Renamed != 1 || len(got.RenamedExamples) != 1 || got.RenamedExamples[0].User != "alice" {
		t.Errorf("%d %v", got.Renamed, got.RenamedExamples)
	}
}

// What somebody tried and could not is no time that he watched.
func TestAttempts(t *testing.T) {
	r := newRoom(1)
	r.start("alice", "a", 0)
	r.ask("alice", "a", 60, "")
	for at := range 10 {
		c := guard.Claim{User: "alice", ID: guard.DeriveID("alice", "", "b"), Stream: "b"}
		r.Start(&Start{At: noon.Add(time.Duration(at) * time.Second), Claim: c, Policy: r.policy, Beside: r.held["alice"], Attempt: true})
	}
	if got := r.report(t); got.Playbacks != 2 || got.Configured.Playbacks != 1 || got.Attempts != 10 || len(got.AtOnce) != 1 {
		t.Errorf("%+v", got)
	}
}

// An audience of any size takes so much room and no more, and says so.
func TestAudienceIsBounded(t *testing.T) {
	r := newRoom(1)
	sh := r.shard("u")
	for n := 0; len(sh.users) < maxUsers/shards; n++ {
		sh.users[fmt.Sprint(n)] = new(user)
	}
	var user string
	for n := 0; user == "" || r.shard(user) != sh; n++ {
		user = fmt.Sprint("more ", n)
	}
	if v := r.start(user, "a", 0); !v.Outcome.Pass() {
		t.Error(v.Outcome)
	}
	if v := r.start(user, "b", 1); v.Outcome.Pass() { // judged all the same
		t.Error(v.Outcome)
	}
	r.ask(user, "a", 2, "")
	if got := r.report(t); !got.UsersAtLeast || sh.users[user] != nil || got.Configured.Playbacks != 1 {
		t.Errorf("%+v", got.Configured)
	}
	for n := range 5000 {
		r.Uncounted("media", fmt.Sprintf("/%d/a.bin", n))
		r.Crowded(fmt.Sprint(n), "a", "b")
	}
	if got := r.report(t); len(got.Uncounted) > maxExamples || len(got.Crowded) > maxExamples || len(r.uncounted) > maxUncounted {
		t.Errorf("%d, %d, %d", len(got.Uncounted), len(got.Crowded), len(r.uncounted))
	}
}

// Requests come from any number of threads, and reports are made meanwhile.
func TestAudienceOfThreads(t *testing.T) {
	a := New()
	a.Watch(noon)
	policy := guard.Policy{Limit: 1, Interval: time.Minute, TTL: 90 * time.Second}
	var all sync.WaitGroup
	for n := range 8 {
		all.Go(func() {
			for i := range 200 {
				c := guard.Claim{User: fmt.Sprint(i % 20), ID: guard.DeriveID("", "", fmt.Sprint(n, i)), Stream: fmt.Sprint(i)}
				at := noon.Add(time.Duration(i) * time.Second)
				a.Start(&Start{At: at, Claim: c, Policy: policy})
				a.Request(&Request{At: at, User: c.User, ID: c.ID, Stream: c.Stream, Name: []byte(fmt.Sprint(i)), TTL: policy.TTL})
				a.Calls(at, 1)
				if i%50 == 0 {
					a.Report()
				}
			}
		})
	}
	all.Wait()
	if r, _ := a.Report(); r.Playbacks != 1600 || r.Requests != 1600 || r.Users != 20 || r.Streams != 200 {
		t.Errorf("%+v", r)
	}
}

func BenchmarkRequest(b *testing.B) {
	r := newRoom(3)
	r.start("alice", "a", 0)
	request := &Request{At: noon, User: "alice", ID: guard.DeriveID("alice", "", "a"), Stream: "a", TTL: 90 * time.Second}
	b.ReportAllocs()
	for b.Loop() {
		r.Request(request)
	}
}
