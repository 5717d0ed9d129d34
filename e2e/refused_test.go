package e2e

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/streamguard/streamguard/redisstore/redistest"
)

var refusedPlayers = flag.Int("refused", 300, "players at once that are refused")

// Players past the limit ask again as soon as they are answered, as video.js
// does. A viewer goes on meanwhile, Redis hears of each player once in two
// seconds, and when they leave, in the midst of their requests, nothing of them is left.
func TestManyRefusedPlayers(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	n := start(t, h2c+site(files, inRedis(redis), "limit 1", "interval 10m"))
	const users = 100
	for u := range users {
		n.want(t, 201, fmt.Sprint("user ", u), "POST", "/guards", "")
	}
	n.want(t, 200, "alice", "GET", target, "", "CMCD-Session", `sid="a"`)
	n.client.CloseIdleConnections()
	goroutines, heap, calls := n.goroutines(t), n.heap(t), scripts(t, redis)

	players := &http.Client{Transport: &http.Transport{Protocols: new(http.Protocols)}} // as streams: connections have a bound here
	players.Transport.(*http.Transport).Protocols.SetUnencryptedHTTP2(true)
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	var hits atomic.Int64
	var refused, playing sync.WaitGroup
	const atLeast = 3 // times each
	begin := time.Now()
	for p := range *refusedPlayers {
		refused.Add(1)
		playing.Go(func() {
			enough := sync.OnceFunc(refused.Done)
			defer enough()
			for asked := 1; ctx.Err() == nil; asked++ {
				status, err := hit(ctx, players, n, fmt.Sprint("user ", p%users), p)
				switch {
				case ctx.Err() != nil:
				case err != nil || status != http.StatusTooManyRequests:
					t.Errorf("player %d was answered %d, %v", p, status, err)
					return
				default:
					hits.Add(1)
					if asked == atLeast {
						enough()
					}
				}
			}
		})
	}
	refused.Wait()
	most := n.goroutines(t)
	for range 100 {
		n.want(t, 200, "alice", "GET", target, "", "CMCD-Session", `sid="a"`)
	}
	leave()
	playing.Wait()
	rounds := int(time.Since(begin)/(2*time.Second)) + 1
	if asked := scripts(t, redis) - calls; asked > *refusedPlayers*rounds {
		t.Errorf("%d players in %d times two seconds made %d calls to Redis", *refusedPlayers, rounds, asked)
	} else {
		t.Logf("%d requests of %d players in %d times two seconds made %d calls to Redis; goroutines %d, before %d", hits.Load(), *refusedPlayers, rounds, asked, most, goroutines)
	}
	// One for each stream, two more while it asks Redis, and some for each connection of up to 250.
	if bound := goroutines + 3**refusedPlayers + 100; most > bound {
		t.Errorf("%d goroutines for %d players", most, *refusedPlayers)
	}
	players.CloseIdleConnections()
	n.client.CloseIdleConnections()
	eventually(t, "nothing is left of the players", func() bool { return n.goroutines(t) <= goroutines+10 })
	eventually(t, "their memory is free", func() bool { return n.heap(t) <= heap+32<<20 })
}

// hit is a request of a player; its number is its session.
func hit(ctx context.Context, client *http.Client, n *node, user string, player int) (status int, err error) {
	r, err := http.NewRequestWithContext(ctx, "GET", "http://"+n.addr+target, nil)
	if err != nil {
		return 0, err
	}
	r.Header.Set("X-User-Id", user)
	r.Header.Set("CMCD-Session", fmt.Sprintf(`sid="%d"`, player))
	resp, err := client.Do(r)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

// heap is how many bytes of the node are reachable.
func (n *node) heap(t *testing.T) int {
	t.Helper()
	r, err := http.NewRequest("GET", "http://localhost/debug/pprof/heap?gc=1&debug=1", nil)
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(n.administer(t, r), "# HeapAlloc = ")
	line, _, _ := strings.Cut(text, "\n")
	bytes, err := strconv.Atoi(line)
	if err != nil {
		t.Fatal(err)
	}
	return bytes
}

var scriptCalls = regexp.MustCompile(`cmdstat_eval\w*:calls=(\d+)`)

// scripts is how many calls a Redis has had that ran a script.
func scripts(t *testing.T, s *redistest.Server) (calls int) {
	t.Helper()
	for _, m := range scriptCalls.FindAllStringSubmatch(say(s, "INFO", "commandstats"), -1) {
		n, err := strconv.Atoi(m[1])
		if err != nil {
			t.Fatal(err)
		}
		calls += n
	}
	return calls
}
