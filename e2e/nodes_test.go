package e2e

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/streamguard/streamguard/redisstore/redistest"
)

func TestOfManyParallelStartsExactlyAsManyAreAdmittedAsThereAreSlots(t *testing.T) {
	t.Parallel()
	const starts, rounds, limit = 200, 50, 3
	for name, nodes := range map[string]func(t *testing.T) []*node{
		"memory": func(t *testing.T) []*node { return []*node{start(t, quiet("store memory"))} },
		"two nodes over one redis": func(t *testing.T) []*node {
			config := quiet(inRedis(redistest.Start(t)))
			return []*node{start(t, config), start(t, config)}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			nodes := nodes(t)
			for round := range rounds {
				user := fmt.Sprint("user", round)
				var all sync.WaitGroup
				answers, errs := make([]*answer, starts), make([]error, starts)
				for i := range starts {
					all.Go(func() {
						body := fmt.Sprintf(`{"playbackId":"p%d","streamId":"s"}`, i)
						answers[i], errs[i] = nodes[i%len(nodes)].send(user, "POST", "/guards", body, "User-Agent", fmt.Sprint(i))
					})
				}
				all.Wait()
				count := make(map[int]int)
				for i, a := range answers {
					if errs[i] != nil {
						t.Fatal(errs[i])
					}
					count[a.status]++
				}
				if count[201] != limit || count[429] != starts-limit {
					t.Fatalf("%d parallel starts of %s were answered %v, want %d times 201 and else 429", starts, user, count, limit)
				}
				for _, n := range nodes {
					if held := n.guards(t, user); len(held.Guards) != limit || held.Remaining != 0 {
						t.Fatalf("%s then holds %+v", user, held)
					}
				}
			}
		})
	}
}

func TestGuardOfOneNodeLivesOnAnother(t *testing.T) {
	t.Parallel()
	a, b := pair(t, monitored(inRedis(redistest.Start(t)), "playback auto", "limit 2"))
	made := decode[guard](t, a.want(t, 201, "alice", "POST", "/guards", `{"playbackId":"p"}`))
	again := decode[guard](t, b.want(t, 200, "alice", "POST", "/guards", `{"playbackId":"p"}`))
	if again.GuardID != made.GuardID {
		t.Errorf("one playback has guard %s on one node and %s on the other", made.GuardID, again.GuardID)
	}
	refreshed := decode[guard](t, b.want(t, 200, "alice", "PATCH", "/guards/"+made.GuardID, ""))
	if !refreshed.CreatedAt.Equal(made.CreatedAt) || !refreshed.ExpiresAt.After(made.ExpiresAt) {
		t.Errorf("%+v was refreshed on the other node to %+v", made, refreshed)
	}
	for _, n := range []*node{a, b} {
		if held := n.guards(t, "alice"); len(held.Guards) != 1 || held.Guards[0] != refreshed {
			t.Errorf("a node lists %+v, want %+v", held.Guards, refreshed)
		}
	}

	// A player whose requests go now to one node and then to the other.
	opened := a.want(t, 200, "alice", "GET", "/media/cmaf/master.m3u8", "")
	dir := strings.TrimSuffix(opened.url.Path, "master.m3u8")
	a.want(t, 200, "alice", "GET", dir+"s0/001.m4s", "")
	b.want(t, 200, "alice", "GET", dir+"s0/002.m4s", "")
	for _, n := range []*node{a, b} {
		if held := n.guards(t, "alice"); len(held.Guards) != 2 {
			t.Errorf("a node lists %+v, want 2 guards", held.Guards)
		}
		refused(t, n.ask(t, "alice", "GET", "/media/ts/master.m3u8", ""), 2)
	}
	b.want(t, 204, "alice", "DELETE", "/guards/"+made.GuardID, "")
	a.want(t, 200, "alice", "GET", "/media/ts/90/000.ts", "")
	refused(t, b.ask(t, "alice", "GET", "/media/byterange/media.mp4", ""), 2)
}

func TestReleaseOnOneNodeIsFeltOnTheOtherAtOnce(t *testing.T) {
	t.Parallel()
	// Without the news of it the other node would know the playback for three minutes,
	// which is longer than this test waits.
	config := monitored(inRedis(redistest.Start(t)), "playback auto", "limit 1", "interval 10m", "ttl 15m")
	a, b := pair(t, strings.Replace(config, "\tlog\n", "\theader >X-Verdict {http.stream_guard.verdict}\n", 1))
	opened := a.want(t, 200, "alice", "GET", "/media/cmaf/master.m3u8", "")
	segment := strings.TrimSuffix(opened.url.Path, "master.m3u8") + "s0/001.m4s"
	verdict := func(a *answer) string { return a.header.Get("X-Verdict") }
	for _, want := range []string{"admitted", "known"} {
		if v := verdict(b.want(t, 200, "alice", "GET", segment, "")); v != want {
			t.Errorf("a request is %s, not %s", v, want)
		}
	}
	made := a.guards(t, "alice").Guards[0]
	a.want(t, 204, "alice", "DELETE", "/guards/"+made.GuardID, "")
	a.want(t, 201, "alice", "POST", "/guards", "")
	eventually(t, "the other node hears of it", func() bool {
		a := b.ask(t, "alice", "GET", segment, "")
		return a.status == 429 && verdict(a) == "rejected"
	})
	if held := b.guards(t, "alice"); len(held.Guards) != 1 {
		t.Errorf("alice holds %+v, want the new guard alone", held)
	}
}

// quiet is site without an access log.
func quiet(options ...string) string {
	return strings.ReplaceAll(site(files, options...), "\tlog\n", "")
}
