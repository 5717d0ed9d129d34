// Package e2e tests the built binary from outside: Caddy with the module, real
// players, a real Redis.
package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/streamguard/streamguard/redisstore/redistest"
)

// root is the repository, where every Caddy runs: Caddyfile.example serves demo
// and testdata from there.
const root = ".."

// patience bounds every wait. It is no promise about speed.
const patience = 2 * time.Minute

// build makes the binary, once for all tests.
var build = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "e2e")
	if err != nil {
		return "", err
	}
	built = dir
	binary := filepath.Join(dir, "caddy")
	cmd := exec.Command("go", slices.Concat([]string{"build", "-o", binary}, buildFlags, []string{"./cmd/caddy"})...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building Caddy: %w\n%s", err, out)
	}
	return binary, nil
})

var buildFlags []string // with -race as the tests have it

var built string // the folder that build made

func TestMain(m *testing.M) {
	code := m.Run()
	if launched != nil {
		launched.quit()
	}
	if built != "" {
		os.RemoveAll(built)
	}
	os.Exit(code)
}

// caddy returns a command of the built binary, with files of its own.
func caddy(ctx context.Context, t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	binary, err := build()
	if err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "HOME="+home, "XDG_DATA_HOME="+home, "XDG_CONFIG_HOME="+home,
		"CADDY_ADMIN="+socket(t))
	return cmd
}

// socket is where a Caddy has its admin API. A test's own folder may have too
// long a name for it.
func socket(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "e2e")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return "unix/" + filepath.Join(dir, "admin")
}

// run runs the binary to its end and returns what it said and its exit code.
func run(t *testing.T, args ...string) (output string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := caddy(ctx, t, args...)
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil || ctx.Err() != nil {
		t.Fatalf("caddy %s: %v, %v\n%s", strings.Join(args, " "), err, ctx.Err(), out)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// file writes a file of the test's own and returns its path.
func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// node is a running Caddy.
type node struct {
	addr   string // host:port
	admin  string // address of the admin API
	client *http.Client
	cmd    *exec.Cmd
	log    *journal
	exited chan struct{}
	err    error // of its end, once exited is closed
	stop   func()
}

// start runs Caddy with a Caddyfile in which the port is written as 8090, and
// returns when it serves. When the test is over it must end well.
func start(t *testing.T, caddyfile string) *node {
	t.Helper()
	n := &node{
		addr:   "127.0.0.1:" + redistest.FreePort(t),
		log:    &journal{serving: make(chan struct{})},
		exited: make(chan struct{}),
		client: &http.Client{
			Timeout:   patience,
			Transport: &http.Transport{MaxIdleConnsPerHost: 256},
		},
	}
	n.cmd = caddy(context.Background(), t, "run", "--adapter", "caddyfile", "--config", file(t, "Caddyfile", n.local(caddyfile)))
	n.cmd.Stdout, n.cmd.Stderr = n.log, n.log
	for _, env := range n.cmd.Env {
		if address, ok := strings.CutPrefix(env, "CADDY_ADMIN="); ok {
			n.admin = address
		}
	}
	if err := n.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		n.err = n.cmd.Wait()
		close(n.exited)
	}()
	select {
	case <-n.log.serving:
	case <-n.exited:
		t.Fatalf("Caddy did not start: %v\n%s", n.err, n.log)
	case <-time.After(patience):
		n.cmd.Process.Kill()
		t.Fatalf("Caddy does not serve\n%s", n.log)
	}
	n.stop = sync.OnceFunc(func() { n.end(t) })
	t.Cleanup(n.stop)
	return n
}

// pair starts two monitored nodes, and returns when each hears what becomes of the
// other's guards.
func pair(t *testing.T, caddyfile string) (a, b *node) {
	t.Helper()
	a, b = start(t, caddyfile), start(t, caddyfile)
	eventually(t, "both nodes have subscribed", func() bool { return a.none(t, "store_deaf") && b.none(t, "store_deaf") })
	return a, b
}

// local puts the node's port in the place of 8090.
func (n *node) local(text string) string {
	_, port, _ := net.SplitHostPort(n.addr)
	return strings.ReplaceAll(text, ":8090", ":"+port)
}

// end stops the node as an operator would.
func (n *node) end(t *testing.T) {
	n.client.CloseIdleConnections()
	n.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-n.exited:
	case <-time.After(patience):
		t.Error("Caddy does not stop on SIGTERM")
		n.cmd.Process.Kill()
		<-n.exited
	}
	if n.err != nil {
		t.Errorf("Caddy ended with %v", n.err)
	}
	log := n.log.String()
	for _, word := range []string{"panic", "DATA RACE"} {
		if strings.Contains(log, word) {
			t.Errorf("Caddy's log has %q", word)
		}
	}
	if t.Failed() {
		t.Logf("refused were:\n%sCaddy's log:\n%s", refusals(log), log[max(0, len(log)-5_000):])
	}
}

// reload gives the node another Caddyfile, with the port written as 8090.
func (n *node) reload(t *testing.T, caddyfile string) (output string, code int) {
	t.Helper()
	return run(t, "reload", "--adapter", "caddyfile", "--address", n.admin, "--config", file(t, "Caddyfile", n.local(caddyfile)))
}

// journal keeps what a node says and notices when it serves.
type journal struct {
	mu      sync.Mutex
	text    bytes.Buffer
	serving chan struct{}
	served  bool
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.text.Write(b)
	if !j.served && bytes.Contains(j.text.Bytes(), []byte("serving initial configuration")) {
		j.served = true
		close(j.serving)
	}
	return len(b), nil
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

// access is a line of the access log about a request that the gate judged.
type access struct {
	At       float64 `json:"ts"` // seconds since 1970
	Status   int     `json:"status"`
	Duration float64 `json:"duration"` // seconds
	Request  struct {
		Method  string              `json:"method"`
		URI     string              `json:"uri"`
		Headers map[string][]string `json:"headers"`
	} `json:"request"`
	User string `json:"user"` // where log_append tells
	Gate *struct {
		Verdict string `json:"verdict"`
		Guard   string `json:"guard"`
		Held    int    `json:"held"`
	} `json:"stream_guard"`
}

// accesses stops the node and returns what its log says about a user's
// requests, so that none is missing.
func (n *node) accesses(t *testing.T, user string) (list []access) {
	t.Helper()
	n.stop()
	for a := range accessesIn(n.log.String()) {
		if got := a.Request.Headers["X-User-Id"]; a.User == user || len(got) == 1 && got[0] == user {
			list = append(list, a)
		}
	}
	return list
}

// accessesIn are the requests in a log that a gate has seen.
func accessesIn(log string) iter.Seq[access] {
	return func(yield func(access) bool) {
		for line := range strings.Lines(log) {
			var a access
			if json.Unmarshal([]byte(line), &a) == nil && a.Gate != nil && !yield(a) {
				return
			}
		}
	}
}

// refusals are the last hundred requests in a log that were refused, one to a line.
func refusals(log string) string {
	var lines []string
	for a := range accessesIn(log) {
		if a.Status == http.StatusTooManyRequests {
			lines = append(lines, fmt.Sprintf("%.3f %s %s %s, %s\n", a.At, a.User, a.Request.Method, a.Request.URI, a.Gate.Verdict))
		}
	}
	return strings.Join(lines[max(0, len(lines)-100):], "")
}

// site is a Caddyfile with these options of stream_guard, one to a line, in
// front of an origin.
func site(origin string, options ...string) string {
	options = withPlayback(options)
	return fmt.Sprintf(":8090 {\n\tstream_guard {\n\t\tuser {header.X-User-Id}\n\t\t%s\n\t}\n\t%s\n\tlog\n}\n",
		strings.Join(options, "\n\t\t"), origin)
}

// withPlayback are options that say how players are told apart: without a word
// about it by the stream, for what most tests send says who it is.
func withPlayback(options []string) []string {
	for _, o := range options {
		if strings.HasPrefix(o, "playback ") {
			return options
		}
	}
	return append(slices.Clone(options), "playback stream")
}

// files is an origin for site: the sample media.
const files = "root testdata\n\tfile_server"

// eachStore runs a test with guards in memory and in a Redis of its own; store
// is an option for site.
func eachStore(t *testing.T, test func(t *testing.T, store string)) {
	t.Helper()
	t.Parallel()
	for name, store := range map[string]func(t *testing.T) string{
		"memory": func(*testing.T) string { return "store memory" },
		"redis":  func(t *testing.T) string { return inRedis(redistest.Start(t)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, store(t))
		})
	}
}

// inRedis is the option of site for a Redis. A busy machine is no fault of the
// store's, and counting without it would prove nothing.
func inRedis(s *redistest.Server) string {
	return "store redis redis://" + s.Addr + " {\n\t\t\ttimeout 10s\n\t\t}\n\t\ton_store_error deny"
}

// answer is a response, read to its end.
type answer struct {
	status int
	header http.Header
	body   string
	url    *url.URL // that answered, after redirects
}

// send sends a user's request and follows redirects; header is names and values.
func (n *node) send(user, method, path, body string, header ...string) (*answer, error) {
	r, err := http.NewRequest(method, "http://"+n.addr+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	if user != "" {
		r.Header.Set("X-User-Id", user)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := n.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return &answer{resp.StatusCode, resp.Header, string(b), resp.Request.URL}, err
}

// ask is send for a test that cannot go on without an answer.
func (n *node) ask(t *testing.T, user, method, path, body string, header ...string) *answer {
	t.Helper()
	a, err := n.send(user, method, path, body, header...)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// want asks and insists on a status.
func (n *node) want(t *testing.T, status int, user, method, path, body string, header ...string) *answer {
	t.Helper()
	a := n.ask(t, user, method, path, body, header...)
	if a.status != status {
		t.Fatalf("%s %s was answered %d, want %d\n%s", method, path, a.status, status, a.body)
	}
	return a
}

// guard is a guard as the API shows it.
type guard struct {
	GuardID   string    `json:"guardId"`
	StreamID  string    `json:"streamId"`
	DeviceID  string    `json:"deviceId"`
	State     string    `json:"state"`
	CreatedAt time.Time `json:"createdAt"`
	ExpiresAt time.Time `json:"expiresAt"`
	RemovedAt time.Time `json:"removedAt"`
}

// list is the answer to GET /guards.
type list struct {
	Guards    []guard `json:"guards"`
	Limit     int     `json:"limit"`
	Remaining int     `json:"remaining"`
}

func (l list) find(id string) (g guard, ok bool) {
	for _, g := range l.Guards {
		if g.GuardID == id {
			return g, true
		}
	}
	return guard{}, false
}

// guards lists what a user holds.
func (n *node) guards(t *testing.T, user string) list {
	t.Helper()
	return decode[list](t, n.want(t, 200, user, "GET", "/guards", ""))
}

// listed is guards for a test in which the store may be away: ok is whether it
// could say.
func (n *node) listed(t *testing.T, user string) (l list, ok bool) {
	t.Helper()
	a := n.ask(t, user, "GET", "/guards", "")
	if a.status == http.StatusServiceUnavailable {
		return l, false
	}
	if a.status != http.StatusOK {
		t.Fatalf("GET /guards was answered %d\n%s", a.status, a.body)
	}
	return decode[list](t, a), true
}

func decode[T any](t *testing.T, a *answer) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(a.body), &v); err != nil {
		t.Fatalf("%v in %s", err, a.body)
	}
	return v
}

// refused insists that an answer is the gate's 429 to a user who holds so many
// guards.
func refused(t *testing.T, a *answer, held int) {
	t.Helper()
	if a.status != 429 {
		t.Fatalf("%s was answered %d, want 429\n%s", a.url, a.status, a.body)
	}
	if got := a.header.Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("Content-Type of a 429: %q", got)
	}
	if got := a.header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("Cache-Control of a 429: %q", got)
	}
	if _, err := time.ParseDuration(a.header.Get("Retry-After") + "s"); err != nil {
		t.Errorf("Retry-After of a 429: %q", a.header.Get("Retry-After"))
	}
	p := decode[struct {
		Status    int    `json:"status"`
		ErrorCode string `json:"errorCode"`
		Guards    []guard
	}](t, a)
	if p.Status != 429 || p.ErrorCode != "REACHED_MAX_GUARDS_COUNT" || len(p.Guards) != held {
		t.Errorf("problem of a 429: %s; want the %d guards in the way", a.body, held)
	}
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !holds(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}
