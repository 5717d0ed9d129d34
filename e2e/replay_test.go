package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/streamguard/streamguard/audience"
)

// The logs of a gate that enforces, its own and that of an nginx in front, are replayed
// through its config: the same playbacks are refused as were.
func TestReplayOfTheLogsOfAnEnforcingGate(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	caddyfile := s.site("limit 2", "store memory", "playback auto")
	n := start(t, caddyfile)
	nginxLog := filepath.Join(t.TempDir(), "nginx.log")
	front := nginx(t, n, `log_format more '$remote_addr - $http_x_user_id [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent" $msec $request_time $http_host';`,
		`access_log `+nginxLog+` more; proxy_set_header Host $http_host;`)
	front.watch(t, "alice", hlsCMAF, realTime)
	front.watch(t, "alice", hlsTS, realTime)
	front.playRefused(t, "alice", mpd)
	front.playRefused(t, "alice", mpd)
	front.watch(t, "bob", mpd, realTime)

	config := file(t, "Caddyfile", caddyfile)
	check := func(from string, args ...string) {
		t.Helper()
		out, code := run(t, append([]string{"stream-guard", "replay", "--adapter", "caddyfile", "--config", config, "--json"}, args...)...)
		var r audience.Report
		if err := json.Unmarshal([]byte(out[max(strings.Index(out, "{\n"), 0):]), &r); code != 0 || err != nil {
			t.Fatalf("%s: %d %v\n%s", from, code, err, out)
		}
		if r.Users != 2 || r.Playbacks != 5 || r.Configured.Playbacks != 2 || r.Configured.Users != 1 || r.Attempts < 2 {
			t.Errorf("%s: %d users, %d playbacks, %+v, %d attempts; want 2, 5, 2 refused of one user, at least 2\n%s", from, r.Users, r.Playbacks, r.Configured, r.Attempts, out)
		}
	}
	written := func(log string) bool { // when an answer is over
		for line := range strings.Lines(log) {
			if strings.Contains(line, "bob") && strings.Contains(line, ".m4s") {
				return true
			}
		}
		return false
	}
	eventually(t, "Caddy has written", func() bool { return written(n.log.String()) })
	check("Caddy's log", file(t, "caddy.log", n.log.String()))
	eventually(t, "nginx has written", func() bool {
		text, _ := os.ReadFile(nginxLog)
		return written(string(text))
	})
	check("nginx' log", "--field", "time=10", "--field", "duration=11", "--field", "host=12", nginxLog)
}

// A gate that observes reports the same of its requests as their log does afterwards.
func TestReportOfALiveGateAndOfItsLog(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	caddyfile := s.site("mode observe", "limit 2", "limit 1 per client replace", "store memory", "playback auto", "log_users plain")
	n := start(t, caddyfile)
	for user, playbacks := range map[string]int{"one": 1, "two": 2, "five": 5} {
		for i := range playbacks {
			for range 3 {
				if _, err := n.segment(user, fmt.Sprint(user, i)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	var live []audience.Report
	if err := json.Unmarshal([]byte(n.operateWell(t, "report", "--json")), &live); err != nil || len(live) != 1 {
		t.Fatal(live, err)
	}
	out, code := run(t, "stream-guard", "replay", "--adapter", "caddyfile", "--config", file(t, "Caddyfile", caddyfile), "--json", file(t, "caddy.log", n.log.String()))
	var replayed audience.Report
	if err := json.Unmarshal([]byte(out[max(strings.Index(out, "{\n"), 0):]), &replayed); code != 0 || err != nil {
		t.Fatalf("%d %v\n%s", code, err, out)
	}
	same := func(r audience.Report) string {
		return fmt.Sprint(r.Users, r.Playbacks, r.Streams, r.Requests, r.Limits, r.Rules, r.Configured, r.SelfRefusals)
	}
	if same(live[0]) != same(replayed) || replayed.Playbacks != 8 || replayed.Configured.Playbacks != 3 {
		t.Errorf("live:   %s\nreplay: %s", same(live[0]), same(replayed))
	}
}

// The page of a report, wide, on a phone and in the dark.
func TestReportPage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	data, err := filepath.Abs(root + "/testdata/replay")
	if err != nil {
		t.Fatal(err)
	}
	if out, code := run(t, "stream-guard", "replay", "--config", data+"/Caddyfile", "--html", filepath.Join(dir, "report.html"), data+"/access.log.gz"); code != 0 {
		t.Fatal(out)
	}
	files := httptest.NewServer(http.FileServer(http.Dir(dir)))
	t.Cleanup(files.Close)
	for _, c := range []struct {
		name, colours string
		width, height int
	}{{"wide", "light", 1280, 900}, {"phone", "light", 360, 800}, {"dark", "dark", 1280, 900}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newTab(t, "visit", files.URL+"/report.html", c.width, c.height, c.colours)
			p.accessible(t, c.name)
			if wide := p.number(t, "document.documentElement.scrollWidth"); wide > float64(c.width) {
				t.Errorf("the page is %v wide in a window of %d", wide, c.width)
			}
			if *screenshots != "" {
				p.do(t, "screenshot", filepath.Join(*screenshots, "report-"+c.name+".png"))
			}
		})
	}
}
