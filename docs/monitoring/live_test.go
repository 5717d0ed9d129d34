package monitoring

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/streamguard/streamguard/redisstore/redistest"
)

// patience bounds every wait. It is no promise about speed.
const patience = 2 * time.Minute

var (
	long  = regexp.MustCompile(`\[\d+[smh]\]`)
	named = regexp.MustCompile(`(?m)^# TYPE (\S+) (\S+)$`)
)

// node is a running Caddy with the gate, metrics at a port of their own.
type node struct {
	site, metrics string // host:port
	cmd           *exec.Cmd
}

var build = sync.OnceValues(func() (string, error) {
	binary := filepath.Join(dir, "caddy")
	cmd := exec.Command("go", "build", "-o", binary, "./cmd/caddy")
	cmd.Dir = "../.."
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("building Caddy: %w\n%s", err, out)
	}
	return binary, err
})

var dir string // of the binary

func TestMain(m *testing.M) {
	var err error
	if dir, err = os.MkdirTemp("", "monitoring"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// serve runs Caddy with guards in a Redis.
func serve(t *testing.T, redis string) *node {
	t.Helper()
	binary, err := build()
	if err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	n := &node{site: "127.0.0.1:" + redistest.FreePort(t), metrics: "127.0.0.1:" + redistest.FreePort(t)}
	caddyfile := filepath.Join(home, "Caddyfile")
	write(t, caddyfile, fmt.Sprintf(`{
	admin off
	metrics
}

http://%s {
	stream_guard {
		user {header.X-User-Id}
		mode {header.X-Mode}
		limit 2
		interval 3s
		ttl 60s
		store redis redis://%s
	}
	respond ok
}

http://%s {
	metrics
}
`, n.site, redis, n.metrics))
	n.cmd = process(t, []string{"HOME=" + home, "XDG_DATA_HOME=" + home, "XDG_CONFIG_HOME=" + home},
		binary, "run", "--config", caddyfile)
	eventually(t, "Caddy serves", func() bool {
		_, err := get("http://" + n.metrics + "/metrics")
		return err == nil
	})
	return n
}

// process runs a program until the test is over.
func process(t *testing.T, env []string, name string, args ...string) *exec.Cmd {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("%s says\n%s", filepath.Base(name), out.Bytes()[max(0, out.Len()-10_000):])
		}
	})
	return cmd
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func get(url string) (string, error) {
	resp, err := http.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, b)
	}
	return string(b), err
}

// ask makes the request of a user, who is judged by a mode, with a player. What is
// answered shows in the metrics.
func (n *node) ask(mode, user, player, path string) {
	r, err := http.NewRequest(http.MethodGet, "http://"+n.site+path, nil)
	if err != nil {
		return
	}
	r.Header.Set("X-User-Id", user)
	r.Header.Set("X-Mode", mode)
	r.Header.Set("User-Agent", player)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return // Caddy has gone
	}
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
}

// traffic is what viewers do all the time, ten of them a second: start, play,
// list their guards. Every other is only observed. One in ten starts a playback too
// many; in a crowd all who are enforced do, several times, and with one and the same
// player.
func (n *node) traffic(t *testing.T) (crowd chan<- bool) {
	crowds, stop, stopped := make(chan bool), make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { close(stop); <-stopped })
	go func() {
		defer close(stopped)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		crowded := false
		for i := 0; ; i++ {
			select {
			case crowded = <-crowds:
			case <-tick.C:
			case <-stop:
				return
			}
			playbacks, mode, joins := 1, "enforce", crowded
			if i%2 > 0 {
				mode, joins = "observe", false
			}
			switch {
			case joins:
				playbacks = 8
			case i%20 == 0 || i%20 == 11:
				playbacks = 3
			}
			user := fmt.Sprintf("user-%d", i)
			for p := range playbacks {
				player := "player"
				if !joins {
					player += fmt.Sprint(p)
				}
				n.ask(mode, user, player, fmt.Sprintf("/vod/film-%d/1.ts?CMCD=sid%%3D%%22%d%%22", p, p))
			}
			n.ask(mode, user, "page", "/guards")
			n.ask("enforce", "watcher", "player", "/vod/film/1.ts?CMCD=sid%3D%22one%22")
			n.ask("enforce", "watcher", "player", "/vod/film/1.ts?CMCD=sid%3D%22")
		}
	}()
	return crowds
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !holds(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// TestMetricsExist holds rules, dashboard and documentation to what a running
// Caddy shows.
func TestMetricsExist(t *testing.T) {
	n := serve(t, redistest.Start(t).Addr)
	n.traffic(t)
	missing := func() (lines []string) {
		text, err := get("http://" + n.metrics + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		shown, ours := map[string]bool{"up": true}, []string(nil) // up is Prometheus' own
		for _, m := range named.FindAllStringSubmatch(text, -1) {
			if strings.HasPrefix(m[1], prefix) {
				ours = append(ours, m[1])
			}
			shown[m[1]] = m[2] != "histogram"
			if m[2] == "histogram" {
				for _, part := range []string{"_bucket", "_sum", "_count"} {
					shown[m[1]+part] = true
				}
			}
		}
		for m, where := range used(t) {
			if !shown[m] {
				lines = append(lines, m+" of the "+where+" does not exist")
			}
		}
		table := documented(t)
		for _, m := range ours {
			if !slices.Contains(table, m) {
				lines = append(lines, m+" is not documented")
			}
		}
		for _, m := range table {
			if !slices.Contains(ours, m) {
				lines = append(lines, m+" is documented but does not exist")
			}
		}
		return lines
	}
	var lines []string
	defer func() {
		for _, line := range lines {
			t.Error(line)
		}
	}()
	eventually(t, "all metrics are there", func() bool {
		lines = missing()
		return len(lines) == 0
	})
}

// prometheus scrapes Caddys and evaluates rules.yml twice a second, in which
// minutes are seconds.
type prometheus struct{ addr string }

func scrape(t *testing.T, n *node) *prometheus {
	t.Helper()
	groups := rules(t)
	each(groups, func(r *rule) {
		r.For = 0
		r.Expr = long.ReplaceAllString(r.Expr, "["+window+"]")
	})
	b, err := yaml.Marshal(groups)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "rules.yml"), string(b))
	write(t, filepath.Join(dir, "prometheus.yml"), fmt.Sprintf(`
global: {scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms}
rule_files: [rules.yml]
scrape_configs:
  - job_name: caddy
    static_configs: [{targets: ["%s"]}]
`, n.metrics))
	p := &prometheus{"127.0.0.1:" + redistest.FreePort(t)}
	process(t, nil, tool(t, "prometheus"), "--config.file="+filepath.Join(dir, "prometheus.yml"), "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address="+p.addr)
	eventually(t, "Prometheus is ready", func() bool {
		_, err := get("http://" + p.addr + "/-/ready")
		return err == nil
	})
	return p
}

// tool is the path of a program of Prometheus.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is needed (Debian: apt-get install prometheus): %v", name, err)
	}
	return path
}

// api asks Prometheus.
func (p *prometheus) api(t *testing.T, path string, into any) {
	t.Helper()
	text, err := get("http://" + p.addr + "/api/v1/" + path)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	if err := json.Unmarshal([]byte(text), &struct{ Data any }{into}); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// firing are the names of the alerts that fire.
func (p *prometheus) firing(t *testing.T) (names []string) {
	t.Helper()
	var answer struct {
		Alerts []struct {
			State  string
			Labels struct{ Alertname string }
		}
	}
	p.api(t, "alerts", &answer)
	for _, a := range answer.Alerts {
		if a.State == "firing" && !slices.Contains(names, a.Labels.Alertname) {
			names = append(names, a.Labels.Alertname)
		}
	}
	return names
}

// fires waits until all these alerts fire.
func (p *prometheus) fires(t *testing.T, names ...string) {
	t.Helper()
	var firing []string
	defer func() {
		if t.Failed() {
			t.Logf("firing: %v", firing)
		}
	}()
	eventually(t, fmt.Sprintf("%v fire", names), func() bool {
		firing = p.firing(t)
		return !slices.ContainsFunc(names, func(n string) bool { return !slices.Contains(firing, n) })
	})
}

// calm waits until no alert fires, each rule having been evaluated well.
func (p *prometheus) calm(t *testing.T) {
	t.Helper()
	var reasons []string
	defer func() {
		if t.Failed() {
			t.Logf("not calm: %v", reasons)
		}
	}()
	eventually(t, "all is calm", func() bool {
		reasons = p.firing(t)
		var answer struct {
			Groups []struct {
				Rules []struct{ Name, Health, LastError string }
			}
		}
		p.api(t, "rules", &answer)
		for _, g := range answer.Groups {
			for _, r := range g.Rules {
				if r.Health != "ok" {
					reasons = append(reasons, r.Name+": "+r.Health+" "+r.LastError)
				}
			}
		}
		return len(answer.Groups) > 0 && len(reasons) == 0
	})
}

// has reports whether a query gives a number.
func (p *prometheus) has(t *testing.T, expr string) bool {
	t.Helper()
	var answer struct {
		Result []struct{ Value [2]any }
	}
	p.api(t, "query?query="+url.QueryEscape(expr), &answer)
	for _, r := range answer.Result {
		if v := r.Value[1]; v != "NaN" {
			return true
		}
	}
	return false
}

// cli sends a Redis a command and returns the answer.
func cli(t *testing.T, s *redistest.Server, stdin string, args ...string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("redis-cli", append([]string{"-p", port}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil || strings.HasPrefix(string(out), "ERR") {
		t.Fatalf("redis-cli %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// usedMemory is how much memory a Redis uses.
func usedMemory(t *testing.T, s *redistest.Server) int {
	t.Helper()
	m := regexp.MustCompile(`used_memory:(\d+)`).FindStringSubmatch(cli(t, s, "", "INFO", "memory"))
	if m == nil {
		t.Fatal("INFO has no used_memory")
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestDashboardHasDataAndAlertsFire has Prometheus watch a Caddy in good and
// bad times. No alert fires when all is well, and each when it should.
func TestDashboardHasDataAndAlertsFire(t *testing.T) {
	unseen := alerts(t)
	redis := redistest.Start(t)
	n := serve(t, redis.Addr)
	crowd := n.traffic(t)
	p := scrape(t, n)
	seen := func(names ...string) {
		unseen = slices.DeleteFunc(unseen, func(a string) bool { return slices.Contains(names, a) })
	}
	fires := func(names ...string) {
		t.Helper()
		p.fires(t, names...)
		seen(names...)
	}

	for _, panel := range panels(t) {
		for _, target := range panel.Targets {
			eventually(t, fmt.Sprintf("panel %q has data: %s", panel.Title, target.Expr), func() bool {
				return p.has(t, query(target.Expr))
			})
		}
	}
	for _, expr := range expressions(t) {
		expr = long.ReplaceAllString(expr, "["+window+"]")
		eventually(t, "there is data for "+expr, func() bool { return p.has(t, expr) })
	}
	p.calm(t)

	crowd <- true
	fires("StreamguardRefusalsRising", "StreamguardSelfRefusals", "StreamguardCanaryRefused")
	crowd <- false
	p.calm(t)

	redis.Kill()
	fires("StreamguardStoreAway", "StreamguardStoreErrors", "StreamguardLocalGrants", "StreamguardAPIErrors")
	redis = redistest.StartOn(t, redis.Addr)
	p.calm(t)

	eventually(t, "a slow store is seen", func() bool {
		cli(t, redis, "", "CLIENT", "PAUSE", "200", "ALL")
		return slices.Contains(p.firing(t), "StreamguardStoreSlow")
	})
	seen("StreamguardStoreSlow")

	cli(t, redis, "", "CONFIG", "SET", "maxmemory", strconv.Itoa(usedMemory(t, redis)*10/9))
	fires("StreamguardRedisMemoryHigh")
	cli(t, redis, "", "CONFIG", "SET", "maxmemory", "0")

	host, port, err := net.SplitHostPort(redis.Addr)
	if err != nil {
		t.Fatal(err)
	}
	replica := redistest.Start(t, "--replicaof", host, port)
	eventually(t, "the replica is there", func() bool {
		return strings.Contains(cli(t, redis, "", "INFO", "replication"), "state=online")
	})
	replica.Pause()
	cli(t, redis, strings.Repeat("x", 2_000_000), "-x", "SET", "large")
	fires("StreamguardReplicationLag")
	replica.Resume()
	p.calm(t)

	n.cmd.Process.Kill()
	fires("StreamguardDown")

	for _, alert := range unseen {
		t.Errorf("%s was never seen to fire", alert)
	}
}
