package e2e

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	domain "github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/guard/guardtest"
	"github.com/streamguard/streamguard/redisstore/redistest"
)

var calls = flag.Int("operations", 3000, "calls in the history of TestHistoryOfTwoNodesIsThatOfOneLedger")

// operator is the node's admin API.
func (n *node) operator() *node {
	path := strings.TrimPrefix(n.admin, "unix/")
	return &node{addr: "localhost", client: &http.Client{Timeout: patience, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
	}}}
}

// What answers of the API and, of revoke, the admin API mean.
var meanings = map[string]map[int]guardtest.Told{
	"acquire": {
		201: {Outcome: domain.Admitted, Held: guardtest.Untold},
		200: {Outcome: domain.Refreshed, Held: guardtest.Untold},
		429: {Outcome: domain.Rejected, Held: guardtest.Untold},
		410: {Outcome: domain.Revoked, Held: guardtest.Untold},
	},
	"refresh": {
		200: {Outcome: domain.Refreshed, Held: guardtest.Untold},
		404: {Outcome: domain.Absent, Held: guardtest.Untold},
		410: {Outcome: domain.Revoked, Held: guardtest.Untold},
	},
	"release": {204: {Found: true}, 404: {}},
	"revoke":  {200: {Found: true}, 404: {}},
	"list":    {200: {}},
}

// Clients call two nodes, and so do operators; of one node the line to Redis
// breaks in the middle of answers. What all of them are told is what one ledger
// would have told them.
func TestHistoryOfTwoNodesIsThatOfOneLedger(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	line := redistest.NewLine(t, redis.Addr)
	line.Set(redistest.Trouble{Breaks: 10})
	var nodes, operators [2]*node
	for i, addr := range []string{redis.Addr, line.Addr} {
		nodes[i] = start(t, quiet(inRedis(&redistest.Server{Addr: addr}), "limit 2", "interval 1h", "ttl 2h"))
		operators[i] = nodes[i].operator()
		t.Cleanup(operators[i].client.CloseIdleConnections)
	}
	broken := func(client int) int64 {
		if client%2 == 0 {
			return 0
		}
		return line.Broken.Load()
	}
	h := guardtest.History{Limit: 2, Broken: broken}
	h.Run(8, *calls, func(client int, c guardtest.Call) (told guardtest.Told, ok bool) {
		n, its := nodes[client%2], "/guards/"+c.ID().String()
		var a *answer
		var err error
		switch c.Verb {
		case "acquire":
			a, err = n.send(c.User, "POST", "/guards", fmt.Sprintf(`{"playbackId":"%d"}`, c.Playback))
		case "refresh":
			a, err = n.send(c.User, "PATCH", its, "")
		case "release":
			a, err = n.send(c.User, "DELETE", its, "")
		case "revoke":
			a, err = operators[client%2].send("", "DELETE", "/stream_guard/users/"+url.PathEscape(c.User)+its, "")
		case "list":
			a, err = n.send(c.User, "GET", "/guards", "")
		}
		if err != nil || a.status == 503 {
			return told, false
		}
		told, ok = meanings[c.Verb][a.status]
		if !ok {
			t.Errorf("%s was answered %d\n%s", c.Verb, a.status, a.body)
		}
		if c.Verb == "list" {
			told.Held = strings.Count(a.body, "guardId")
		}
		return told, ok
	})
	h.Check(t)
}
