package truth

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/streamguard/streamguard/redisstore/redistest"
)

// What everybody's gate is set to, in seconds of life.
const (
	pace     = 5 // seconds of life in a second
	interval = 60
	ttl      = 90
	limit    = 2

	bitrate = 2 << 10 // bytes for a second of media
)

// life is how long so many seconds of life take.
func life(seconds float64) time.Duration {
	return time.Duration(seconds / pace * float64(time.Second))
}

// build makes the binary, in which all takes a fraction of its time.
var build = sync.OnceValues(func() (string, error) {
	binary := filepath.Join(folder, "caddy")
	cmd := exec.Command("go", "build", "-o", binary,
		"-ldflags", fmt.Sprintf("-X github.com/streamguard/streamguard/guard.pace=%d", pace), "./cmd/caddy")
	cmd.Dir = ".."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building Caddy: %w\n%s", err, out)
	}
	return binary, nil
})

var folder string // for what the tests write

func TestMain(m *testing.M) {
	var err error
	if folder, err = os.MkdirTemp("", "truth"); err != nil {
		panic(err)
	}
	flag.Parse()
	flag.Set("test.parallel", "8") // worlds do little but wait
	code := m.Run()
	os.RemoveAll(folder)
	os.Exit(code)
}

// world is some gates with one store in front of an origin, and who asks them.
type world struct {
	*book
	gates []*gate
	redis *redistest.Server

	mu    sync.Mutex
	conns []net.Conn // all that players have opened
}

// gate is a running Caddy.
type gate struct {
	address string
	boxes   string // where there is limit 1 per client replace, too
	config  string
	home    string
	cmd     *exec.Cmd
	said    *journal
}

// journal keeps what a Caddy says, and notices when it serves.
type journal struct {
	mu      sync.Mutex
	text    bytes.Buffer
	serving chan struct{}
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	before := strings.Contains(j.text.String(), "serving initial configuration")
	j.text.Write(b)
	if !before && strings.Contains(j.text.String(), "serving initial configuration") {
		close(j.serving)
	}
	return len(b), nil
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

func newWorld(t *testing.T, inRedis bool, gates int) *world {
	t.Helper()
	w := &world{book: new(book)}
	origin := httptest.NewServer(http.HandlerFunc(serve))
	t.Cleanup(origin.Close)
	store := "memory"
	if inRedis {
		w.redis = redistest.Start(t)
		store = "redis redis://" + w.redis.Addr
	}
	for range gates {
		g := &gate{address: "127.0.0.1:" + redistest.FreePort(t), boxes: "127.0.0.1:" + redistest.FreePort(t), home: t.TempDir()}
		log := ""
		if *why != "" && *why != "all" {
			log = "log"
		}
		g.config = fmt.Sprintf(`{
	auto_https off
	persist_config off
	grace_period 1s
	servers {
		protocols h1 h2c
		timeouts {
			idle %v
			write_idle %v
		}
	}
}
(gate) {
	bind 127.0.0.1
	%s
	stream_guard {
		user {header.X-User-Id}
		limit %d
		{args[:]}
		interval %v
		ttl %v
		store %s
	}
	reverse_proxy %s {
		flush_interval -1
	}
}
http://:%s {
	import gate
}
http://:%s {
	import gate limit 1 per client replace
}
`, life(300), life(30), log, limit, life(interval), life(ttl), store, origin.Listener.Addr(), port(g.address), port(g.boxes))
		if err := g.start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := g.stop(); err != nil {
				t.Error(err)
			}
		})
		w.gates = append(w.gates, g)
	}
	t.Cleanup(func() { // before the gates stop
		for _, c := range w.conns {
			c.Close()
		}
	})
	return w
}

func port(address string) string { return strings.TrimPrefix(address, "127.0.0.1:") }

// of is where players of a kind ask.
func (g *gate) of(k *kind) string {
	if k.box {
		return g.boxes
	}
	return g.address
}

func (g *gate) start() error {
	binary, err := build()
	if err != nil {
		return err
	}
	config := filepath.Join(g.home, "Caddyfile")
	if err := os.WriteFile(config, []byte(g.config), 0o600); err != nil {
		return err
	}
	g.said = &journal{serving: make(chan struct{})}
	g.cmd = exec.Command(binary, "run", "--adapter", "caddyfile", "--config", config)
	h := fnv.New32a()
	h.Write([]byte(g.home))
	g.cmd.Env = append(os.Environ(), "HOME="+g.home, "XDG_DATA_HOME="+g.home, "XDG_CONFIG_HOME="+g.home,
		"CADDY_ADMIN=unix/"+filepath.Join(folder, fmt.Sprintf("%08x", h.Sum32())))
	g.cmd.Stdout, g.cmd.Stderr = g.said, g.said
	if err := g.cmd.Start(); err != nil {
		return err
	}
	select {
	case <-g.said.serving:
		return nil
	case <-time.After(time.Minute):
		g.cmd.Process.Kill()
		g.cmd.Wait()
		return fmt.Errorf("Caddy does not serve\n%s", g.said)
	}
}

func (g *gate) stop() error {
	g.cmd.Process.Signal(syscall.SIGTERM)
	if err := g.cmd.Wait(); err != nil || strings.Contains(g.said.String(), "panic") {
		return fmt.Errorf("Caddy ended with %v\n%s", err, g.said)
	}
	return nil
}

// until waits for a second of life.
func (w *world) until(ctx context.Context, second float64) {
	timer := time.NewTimer(time.Until(w.began.Add(life(second))))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// opened remembers a connection to its end: who vanishes does not close it.
func (w *world) opened(c net.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conns = append(w.conns, c)
}

// serve is the origin.
func serve(w http.ResponseWriter, r *http.Request) {
	segment := make([]byte, 4*bitrate)
	switch name := path.Base(r.URL.Path); {
	case name == "master.m3u8":
		io.WriteString(w, "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=20000\nv.m3u8\n")
	case name == "v.m3u8":
		var b strings.Builder
		fmt.Fprintf(&b, "#EXTM3U\n#EXT-X-TARGETDURATION:%d\n", 4/pace+1)
		for n := range 300 {
			fmt.Fprintf(&b, "#EXTINF:%.1f,\n%d.ts\n", 4./pace, n)
		}
		b.WriteString("#EXT-X-ENDLIST\n")
		io.WriteString(w, b.String())
	case strings.HasPrefix(name, "channel"):
		much := segment[:bitrate/2]
		if name == "channel-fast.ts" { // soon so much that a receiver who is gone is noticed
			much = bytes.Repeat(segment, 32)
		}
		w.WriteHeader(http.StatusOK)
		for r.Context().Err() == nil {
			if _, err := w.Write(much); err != nil {
				return
			}
			w.(http.Flusher).Flush()
			select {
			case <-time.After(life(0.5)):
			case <-r.Context().Done():
			}
		}
	case name == "film.mp4":
		w.Header().Set("Content-Type", "video/mp4")
		http.ServeContent(w, r, name, time.Unix(1, 0), bytes.NewReader(film))
	case strings.HasPrefix(name, "slow"):
		w.Header().Set("Content-Length", fmt.Sprint(len(segment)))
		w.Write(segment[:bitrate])
		w.(http.Flusher).Flush()
		select {
		case <-time.After(life(3)):
			w.Write(segment[bitrate:])
		case <-r.Context().Done():
		}
	default:
		w.Write(segment)
	}
}

var film = make([]byte, 2<<20)

// household adds an account of four players of these kinds.
func (w *world) household(ctx context.Context, all *sync.WaitGroup, group string, four []*kind, length float64) {
	n := 4 * len(w.accounts)
	a := &account{user: fmt.Sprintf("u%d", n), group: group}
	w.accounts = append(w.accounts, a)
	if *why != "" && *why != "all" && *why != a.user {
		return
	}
	for _, k := range four {
		sessions := k.plan(rand.New(rand.NewPCG(*seed, uint64(n))), length)
		p := newPlayer(w, a, n, k)
		all.Go(func() { p.live(ctx, sessions) })
		n++
	}
	all.Go(func() { w.look(ctx, a, length, n) })
}

// look asks the API every 10 s what the account plays.
func (w *world) look(ctx context.Context, a *account, length float64, n int) {
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	for at := 10 + float64(n%10); at < length; at += 10 {
		if w.until(ctx, at); ctx.Err() != nil {
			return
		}
		for _, g := range w.gates {
			s := sample{asked: w.now()}
			if err := s.take(ctx, client, g, a.user); err == nil {
				w.write(func(now float64) {
					s.answered = now
					a.samples = append(a.samples, s)
				})
				break
			}
		}
	}
}

func (s *sample) take(ctx context.Context, client *http.Client, g *gate, user string) error {
	r, err := http.NewRequestWithContext(ctx, "GET", "http://"+g.address+"/guards", nil)
	if err != nil {
		return err
	}
	r.Header.Set("X-User-Id", user)
	resp, err := client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var list struct {
		Guards []struct {
			State     string
			ExpiresAt time.Time
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&list); err != nil || resp.StatusCode != 200 {
		return fmt.Errorf("%d %v", resp.StatusCode, err)
	}
	for _, g := range list.Guards {
		if g.State == "active" || g.State == "" && g.ExpiresAt.After(time.Now()) {
			s.active++
		}
		if g.State != "closed" {
			s.listed++
		}
	}
	return nil
}

// flush empties Redis.
func (w *world) flush() error {
	conn, err := net.Dial("tcp", w.redis.Addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "FLUSHALL\r\n"); err != nil {
		return err
	}
	reply := make([]byte, 3)
	if _, err := io.ReadFull(conn, reply); err != nil || string(reply) != "+OK" {
		return fmt.Errorf("FLUSHALL: %q, %v", reply, err)
	}
	return nil
}
