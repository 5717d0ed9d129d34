package e2e

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/streamguard/streamguard/redisstore/redistest"
)

// monitored is site with Caddy's metrics at /metrics.
func monitored(options ...string) string {
	return site("metrics /metrics\n\t"+files, options...)
}

// scrape returns what /metrics says: a number for each series.
func (n *node) scrape(t *testing.T) map[string]float64 {
	t.Helper()
	series := make(map[string]float64)
	for line := range strings.Lines(n.want(t, 200, "", "GET", "/metrics", "").body) {
		line = strings.TrimSpace(line)
		i := strings.LastIndex(line, " ")
		if f, err := strconv.ParseFloat(line[i+1:], 64); i > 0 && err == nil {
			series[line[:i]] = f
		}
	}
	return series
}

// none reports whether a gauge is 0, of every store or server that it is told of.
func (n *node) none(t *testing.T, gauge string) (none bool) {
	t.Helper()
	for series, value := range n.scrape(t) {
		if strings.HasPrefix(series, "caddy_stream_guard_"+gauge+"{") {
			if value != 0 {
				return false
			}
			none = true
		}
	}
	return none
}

func TestScrapeEqualsTheTraffic(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	store := inRedis(s)
	n := start(t, monitored(store))
	const dir = "/media/cmaf/"
	for _, session := range []string{"a", "b", "c"} {
		n.want(t, 200, "alice", "GET", dir+"s0/001.m4s", "", "CMCD-Session", `sid="`+session+`"`)
		for range 5 {
			n.want(t, 200, "alice", "GET", dir+"s0/002.m4s", "", "CMCD-Session", `sid="`+session+`"`)
		}
	}
	for range 2 {
		n.want(t, 429, "alice", "GET", dir+"master.m3u8", "", "CMCD-Session", `sid="d"`, "User-Agent", "another")
	}
	n.want(t, 200, "bob", "GET", dir+"s0/001.m4s", "", "CMCD-Session", `sid="unterminated`)
	n.want(t, 401, "", "GET", dir+"master.m3u8", "")
	guards := n.guards(t, "alice").Guards
	n.want(t, 429, "alice", "POST", "/guards", "{}")
	n.want(t, 200, "alice", "PATCH", "/guards/"+guards[0].GuardID, "{}")
	n.want(t, 204, "alice", "DELETE", "/guards/"+guards[0].GuardID, "")
	n.want(t, 404, "alice", "DELETE", "/guards/"+guards[0].GuardID, "")

	want := map[string]float64{
		`verdicts_total{verdict="admitted"}`:     4,
		`verdicts_total{verdict="known"}`:        15,
		`verdicts_total{verdict="rejected"}`:     2,
		`verdicts_total{verdict="missing_user"}`: 1,
		`cmcd_broken_total`:                      1,
		`user_guards_sum`:                        1 + 2 + 3 + 1,
		`user_guards_count`:                      4,
		`decision_duration_seconds_count`:        6,
		`api_request_duration_seconds_count{code="200",endpoint="/guards",method="GET"}`:         1,
		`api_request_duration_seconds_count{code="429",endpoint="/guards",method="POST"}`:        1,
		`api_request_duration_seconds_count{code="200",endpoint="/guards/{id}",method="PATCH"}`:  1,
		`api_request_duration_seconds_count{code="204",endpoint="/guards/{id}",method="DELETE"}`: 1,
		`api_request_duration_seconds_count{code="404",endpoint="/guards/{id}",method="DELETE"}`: 1,
		`store_operation_duration_seconds_count{result="ok",verb="acquire"}`:                     6,
		`store_operation_duration_seconds_count{result="ok",verb="release"}`:                     2,
		`leases{store="redis ` + s.Addr + `"}`:                                                   3,
		`breaker_open{server="` + s.Addr + `",store="redis ` + s.Addr + `"}`:                     0,
		`redis_up{node="` + s.Addr + `"}`:                                                        1,
	}
	check := func(when string) {
		t.Helper()
		got := n.scrape(t)
		for series, value := range want {
			if g, there := got["caddy_stream_guard_"+series]; !there || g != value {
				t.Errorf("%s: %s is %v, want %v", when, series, g, value)
			}
		}
		for _, series := range []string{"process_cpu_seconds_total", "process_resident_memory_bytes", "go_goroutines"} {
			if got[series] == 0 {
				t.Errorf("%s: %s is missing", when, series)
			}
		}
		for _, name := range []string{"redis_memory_used_bytes", "redis_commands_total", "redis_reads_total", "redis_writes_total", "redis_connected_clients"} {
			if got["caddy_stream_guard_"+name+`{node="`+s.Addr+`"}`] == 0 {
				t.Errorf("%s: %s is missing", when, name)
			}
		}
	}
	check("at first")
	n.reloadWell(t, monitored(store, "limit 4"))
	check("after a reload")

	// Whoever scrapes is answered, and told.
	s.Pause()
	defer s.Resume()
	eventually(t, "redis_up is 0", func() bool {
		return n.scrape(t)[`caddy_stream_guard_redis_up{node="`+s.Addr+`"}`] == 0
	})
}

func TestRequestIDIsInTheRefusalAndItsLogs(t *testing.T) {
	t.Parallel()
	n := start(t, site(files, "limit 0"))
	var problem struct{ Instance string }
	a := n.want(t, 429, "alice", "GET", "/media/cmaf/master.m3u8", "")
	if err := json.Unmarshal([]byte(a.body), &problem); err != nil {
		t.Fatal(err)
	}
	id, ok := strings.CutPrefix(problem.Instance, "urn:uuid:")
	if !ok {
		t.Fatalf("the refusal is an instance of %q", problem.Instance)
	}
	n.stop()
	var refusal, accesses int
	for line := range strings.Lines(n.log.String()) {
		var l struct {
			Msg       string
			RequestID string `json:"request_id"`
			UUID      string
			Gate      struct{ User string } `json:"stream_guard"`
		}
		json.Unmarshal([]byte(line), &l)
		switch {
		case l.RequestID == id && l.Msg == "refused":
			refusal++
		case l.UUID == id && l.Msg == "handled request":
			accesses++
		default:
			continue
		}
		if l.Gate.User != "2bd806c97f0e00af" { // SHA-256 of alice
			t.Errorf("the log says user %q", l.Gate.User)
		}
	}
	if refusal != 1 || accesses != 1 {
		t.Errorf("the request's id is in %d refusals and %d accesses of the log, want one each", refusal, accesses)
	}
}

// The documented call, while a player plays.
func TestLogLevelChangesWhileAPlayerPlays(t *testing.T) {
	t.Parallel()
	n := start(t, "{\n\tlog {\n\t\tlevel INFO\n\t}\n}\n"+site(files, inRedis(redistest.Start(t)), "limit 1", "playback auto", "interval 3s", "ttl 90s"))
	v := n.watch(t, "alice", mpd, endless)
	refusals := func() int {
		n.want(t, 429, "alice", "GET", "/media/ts/master.m3u8", "")
		return strings.Count(n.log.String(), `"refused"`)
	}
	n.setLevel(t, "ERROR")
	eventually(t, "refusals are logged no more", func() bool { // the old server may still take a connection
		before := refusals()
		for range 10 {
			refusals()
		}
		return refusals() == before
	})
	n.setLevel(t, "INFO")
	before := refusals()
	eventually(t, "a refusal is logged", func() bool { return refusals() > before })
	n.goOn(t, "alice", v)
}

func (n *node) setLevel(t *testing.T, level string) {
	t.Helper()
	r, err := http.NewRequest("POST", "http://localhost/config/logging/logs/default/level", strings.NewReader(strconv.Quote(level)))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	n.administer(t, r)
}

// administer makes a call to the admin API and returns the answer's body.
func (n *node) administer(t *testing.T, r *http.Request) string {
	t.Helper()
	admin := &http.Client{Timeout: patience, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", strings.TrimPrefix(n.admin, "unix/"))
		},
	}}
	resp, err := admin.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v: %s", r.URL, resp.Status, err, b)
	}
	return string(b)
}
