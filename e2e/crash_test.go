package e2e

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/streamguard/streamguard/redisstore/redistest"
)

// segment asks for media as a player of its own, which says by CMCD who it is.
func (n *node) segment(user, session string) (*answer, error) {
	return n.send(user, "GET", "/media/cmaf/s0/001.m4s", "", "CMCD-Session", `sid="`+session+`"`, "User-Agent", session)
}

// kill ends the node as a crash would.
func (n *node) kill() {
	n.cmd.Process.Kill()
	<-n.exited
	n.err = nil // it was to be
}

// A load balancer sends the viewers of a node that dies to the other one.
func TestNodeKilledUnderLoad(t *testing.T) {
	t.Parallel()
	config := site(files, inRedis(redistest.Start(t)), "playback auto", "limit 3", "interval 3s", "ttl 60s")
	a, b := start(t, config), start(t, config)
	front := start(t, fmt.Sprintf(":8090 {\n\treverse_proxy %s %s {\n\t\tlb_policy first\n\t\tlb_try_duration 20s\n\t\tfail_duration 1h\n\t}\n}\n", a.addr, b.addr))
	var viewers []*viewer
	for range 3 {
		viewers = append(viewers, front.watch(t, "alice", mpd, endless))
	}
	users := []string{"alice"}
	var crowd sync.WaitGroup
	var served atomic.Int64
	over := make(chan struct{})
	defer crowd.Wait()
	stop := sync.OnceFunc(func() { close(over) })
	defer stop()
	for u := range 8 {
		user := fmt.Sprint("user", u)
		users = append(users, user)
		for s := range 3 {
			crowd.Go(func() {
				for {
					select {
					case <-over:
						return
					default:
					}
					// An answer under way ends with the node; it is no refusal.
					if answer, err := front.segment(user, fmt.Sprint(s)); err == nil {
						served.Add(1)
						if answer.status != 200 {
							t.Errorf("%s was answered %d\n%s", user, answer.status, answer.body)
							return
						}
					}
				}
			})
		}
	}
	more := func(requests int64) {
		t.Helper()
		from := served.Load()
		eventually(t, "the crowd is served", func() bool { return served.Load() > from+requests })
	}
	before := make(map[string]list)
	eventually(t, "all have their guards", func() bool {
		for _, user := range users {
			before[user] = b.guards(t, user)
			if len(before[user].Guards) < 3 {
				return false
			}
		}
		return true
	})
	more(200)

	a.kill()
	exact := func() {
		t.Helper()
		for _, user := range users {
			refused(t, b.ask(t, user, "POST", "/guards", ""), 3)
			held := b.guards(t, user)
			for _, was := range before[user].Guards {
				if is, ok := held.find(was.GuardID); !ok || !is.CreatedAt.Equal(was.CreatedAt) || len(held.Guards) != 3 {
					t.Errorf("%s holds %+v, and did hold %+v", user, held.Guards, before[user].Guards)
				}
			}
		}
	}
	exact()
	front.goOn(t, "alice", viewers...)
	more(200)
	stop()
	crowd.Wait()
	exact()
	front.stop()
	for _, n := range []*node{a, b} {
		for _, access := range n.accesses(t, "alice") {
			if access.Status >= 400 && access.Status != 499 && access.Request.Method == "GET" {
				t.Errorf("%s was answered %d", access.Request.URI, access.Status)
			}
		}
	}
}

// A node is stopped for longer than ttl and goes on as if nothing had been: what
// it knew is over, and of its viewers as many go on as there are slots.
func TestStoppedNodeTakesNoSlotThatIsAnothersByNow(t *testing.T) {
	t.Parallel()
	a, b := pair(t, monitored(inRedis(redistest.Start(t)), "limit 3", "interval 1s", "ttl 5s"))
	plays := func(n *node, session string) int {
		answer, err := n.segment("alice", session)
		if err != nil {
			t.Error(err)
			return 0
		}
		return answer.status
	}
	for _, session := range []string{"one", "two", "moves"} {
		if status := plays(a, session); status != 200 {
			t.Fatalf("%s was answered %d", session, status)
		}
	}
	a.cmd.Process.Signal(syscall.SIGSTOP)
	resume := func() { a.cmd.Process.Signal(syscall.SIGCONT) }
	t.Cleanup(resume)

	over := make(chan struct{})
	var elsewhere sync.WaitGroup
	defer elsewhere.Wait()
	defer close(over)
	goOn := func(session string) {
		elsewhere.Go(func() {
			tick := time.NewTicker(100 * time.Millisecond)
			defer tick.Stop()
			for {
				if status := plays(b, session); status != 200 {
					t.Errorf("%s was answered %d", session, status)
				}
				select {
				case <-over:
					return
				case <-tick.C:
				}
			}
		})
	}
	goOn("moves")
	eventually(t, "the guards of the others are gone", func() bool { return len(b.guards(t, "alice").Guards) == 1 })
	goOn("new")
	eventually(t, "a newcomer plays", func() bool { return len(b.guards(t, "alice").Guards) == 2 })

	sessions := []string{"one", "two", "moves"}
	statuses := make([]int, len(sessions))
	var all sync.WaitGroup
	for i, session := range sessions {
		all.Go(func() { statuses[i] = plays(a, session) })
	}
	resume()
	all.Wait()
	if statuses[2] != 200 {
		t.Errorf("whoever moved was answered %d where it came from", statuses[2])
	}
	if others := statuses[:2]; !slices.Contains(others, 200) || !slices.Contains(others, 429) {
		t.Errorf("two for the one free slot were answered %v", others)
	}
	if held := b.guards(t, "alice"); len(held.Guards) != 3 {
		t.Errorf("alice holds %+v, want 3 guards", held.Guards)
	}
}
