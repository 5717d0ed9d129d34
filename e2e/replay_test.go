package e2e

import (
	"encoding/json"
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
	check("Caddy's log", file(t, "caddy.log", n.log.String()))
	eventually(t, "nginx has written", func() bool {
		text, _ := os.ReadFile(nginxLog)
		return strings.Contains(string(text), "bob")
	})
	check("nginx' log", "--field", "time=10", "--field", "duration=11", "--field", "host=12", nginxLog)
}
