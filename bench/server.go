package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/streamguard/streamguard/bench/viewer"
)

// lab is where servers run: a folder of its own, which goes with them.
type lab struct {
	ctx     context.Context
	dir     string
	servers []*server
	origins []*http.Server
}

func newLab(ctx context.Context) (*lab, error) {
	if _, err := exec.LookPath("redis-server"); err != nil {
		return nil, errors.New("redis-server is missing (on Debian: apt-get install redis-server)")
	}
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return nil, err
	}
	l := &lab{ctx: ctx, dir: dir}
	for _, command := range []string{"caddy", "load", "alone"} {
		if _, err := l.output("", "go", "build", "-o", l.path(command), "./"+command); err != nil {
			l.close()
			return nil, err
		}
	}
	return l, l.segments()
}

func (l *lab) path(name string) string { return filepath.Join(l.dir, name) }

// sizes are the segments there are, by the first directory of their paths.
var sizes = map[string]int{"4k": 4 << 10, "200k": 200 << 10}

// segments makes a segment of each size for each title; all are one file.
func (l *lab) segments() error {
	for dir, size := range sizes {
		first := ""
		for n := range uint64(viewer.Titles) {
			file := filepath.Join(l.path("files"), dir, string(viewer.AppendTitle(nil, n)), "seg.m4s")
			err := os.MkdirAll(filepath.Dir(file), 0o700)
			if first == "" {
				first = file
				err = errors.Join(err, os.WriteFile(file, make([]byte, size), 0o600))
			} else {
				err = errors.Join(err, os.Link(first, file))
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// output runs a command to its end.
func (l *lab) output(dir, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(l.ctx, name, args...)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w\n%s%s", filepath.Base(name), strings.Join(args, " "), err, out, stderr.Bytes())
	}
	return out, nil
}

func (l *lab) close() {
	l.stop()
	os.RemoveAll(l.dir)
}

// stop ends all servers.
func (l *lab) stop() {
	for _, s := range l.servers {
		s.cmd.Process.Kill()
		<-s.exited
	}
	for _, o := range l.origins {
		o.Close()
	}
	l.servers, l.origins = nil, nil
}

// server is a process that serves.
type server struct {
	name   string
	addr   string
	admin  string // of a Caddy
	cmd    *exec.Cmd
	exited chan struct{}
}

// start starts a process and waits until it accepts connections at addr.
func (l *lab) start(name, addr string, cmd *exec.Cmd) (*server, error) {
	s := &server{name: name, addr: addr, cmd: cmd, exited: make(chan struct{})}
	log, err := os.Create(l.path(fmt.Sprintf("%s-%d.log", name, len(l.servers))))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	l.servers = append(l.servers, s)
	go func() {
		cmd.Wait()
		close(s.exited)
	}()
	for range 200 {
		if c, err := net.Dial("tcp", addr); err == nil {
			return s, c.Close()
		}
		select {
		case <-s.exited:
			text, _ := os.ReadFile(log.Name())
			return nil, fmt.Errorf("%s ended: %v\n%s", name, cmd.ProcessState, text)
		case <-time.After(50 * time.Millisecond):
		}
	}
	return nil, fmt.Errorf("%s does not serve", name)
}

// redis starts a redis-server that keeps nothing on disk.
func (l *lab) redis() (*server, error) {
	addr, port, err := free()
	if err != nil {
		return nil, err
	}
	return l.start("redis", addr, exec.CommandContext(l.ctx, "redis-server",
		"--bind", "127.0.0.1", "--port", port, "--save", "", "--dir", l.dir))
}

// caddy starts a Caddy with these lines in one route of its only site.
func (l *lab) caddy(name string, route ...string) (*server, error) {
	addr, port, err := free()
	if err != nil {
		return nil, err
	}
	admin, _, err := free()
	if err != nil {
		return nil, err
	}
	config := fmt.Sprintf("{\n\tadmin %s\n\tauto_https off\n\tpersist_config off\n}\n:%s {\n\tbind 127.0.0.1\n\troute {\n\t\t%s\n\t}\n}\n",
		admin, port, strings.Join(route, "\n\t\t"))
	file := l.path(fmt.Sprintf("%s-%d.Caddyfile", name, len(l.servers)))
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(l.ctx, l.path("caddy"), "run", "--adapter", "caddyfile", "--config", file)
	cmd.Env = append(os.Environ(), "HOME="+l.dir, "XDG_DATA_HOME="+l.dir, "XDG_CONFIG_HOME="+l.dir)
	s, err := l.start(name, addr, cmd)
	if err != nil {
		return nil, err
	}
	s.admin = admin
	return s, nil
}

// peer starts bench/peers/fastify on a Redis.
func (l *lab) peer(redis *server) (*server, error) {
	addr, port, err := free()
	if err != nil {
		return nil, err
	}
	_, redisPort, _ := net.SplitHostPort(redis.addr)
	cmd := exec.CommandContext(l.ctx, "node", "server.js", port, redisPort)
	cmd.Dir = peerDir
	cmd.Env = append(os.Environ(), "NODE_ENV=production")
	return l.start("fastify", addr, cmd)
}

const peerDir = "peers/fastify"

// installPeer installs what the lock file says, unless it is there.
func (l *lab) installPeer() error {
	for _, tool := range []string{"node", "npm"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("%s is missing (on Debian: apt-get install nodejs npm)", tool)
		}
	}
	want, err := os.Stat(filepath.Join(peerDir, "package-lock.json"))
	if err != nil {
		return err
	}
	if have, err := os.Stat(filepath.Join(peerDir, "node_modules", ".package-lock.json")); err == nil && have.ModTime().After(want.ModTime()) {
		return nil
	}
	_, err = l.output(peerDir, "npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts")
	return err
}

// origin serves the segments from memory, for reverse_proxy. It runs in this
// process, which has nothing else to do meanwhile.
func (l *lab) origin() (addr string, err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	mux := http.NewServeMux()
	for dir, size := range sizes {
		segment := make([]byte, size)
		mux.HandleFunc("/"+dir+"/", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "video/iso.segment")
			w.Header().Set("Content-Length", strconv.Itoa(len(segment)))
			w.Write(segment)
		})
	}
	for dir, before := range playlistDirs {
		mux.HandleFunc("/"+dir+"/", live(before))
	}
	o := &http.Server{Handler: mux}
	l.origins = append(l.origins, o)
	go o.Serve(listener)
	return listener.Addr().String(), nil
}

// playlistDirs are where live playlists are, and what stands before each URL.
var playlistDirs = map[string]string{"relative": "", "absolute": "/absolute/"}

// live serves a channel of four hours, packed: its playlist changes every two
// seconds. Anything else of it is a segment.
func live(before string) http.HandlerFunc {
	var mu sync.Mutex
	var made int64
	var packed []byte
	return func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, ".m3u8") {
			w.Write([]byte("segment"))
			return
		}
		mu.Lock()
		if now := time.Now().Unix() / 2; now != made {
			var b bytes.Buffer
			z := gzip.NewWriter(&b)
			fmt.Fprintf(z, "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:%d\n", now)
			for n := now; n < now+7200; n++ {
				fmt.Fprintf(z, "#EXT-X-PROGRAM-DATE-TIME:%s\n#EXTINF:2.000,\n%ssegment-%d.m4s\n", time.Unix(2*n, 0).UTC().Format(time.RFC3339), before, n)
			}
			z.Close()
			made, packed = now, b.Bytes()
		}
		body := packed
		mu.Unlock()
		w.Header().Set("Content-Type", "application/vnd.apple.mpegurl")
		w.Header().Set("Content-Encoding", "gzip")
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		w.Write(body)
	}
}

// free finds a free port.
func free() (addr, port string, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", "", err
	}
	defer l.Close()
	addr = l.Addr().String()
	_, port, err = net.SplitHostPort(addr)
	return addr, port, err
}

// cpu is the processor time that a server has used.
func (s *server) cpu() (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	// Behind the name, which may hold anything: state is the third field of
	// proc_pid_stat(5), utime and stime are the 14th and 15th, in ticks of 10 ms.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	utime, err1 := strconv.Atoi(fields[14-3])
	stime, err2 := strconv.Atoi(fields[15-3])
	return time.Duration(utime+stime) * 10 * time.Millisecond, errors.Join(err1, err2)
}

// memory is what a server has in memory, in bytes, of its own.
func (s *server) memory() (float64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	_, line, found := strings.Cut(string(status), "RssAnon:")
	var kb float64
	if _, err := fmt.Sscan(line, &kb); !found || err != nil {
		return 0, fmt.Errorf("/proc says nothing of the memory of %s", s.name)
	}
	return kb * 1024, nil
}

// result is what load says of a run, and what it cost the server.
type result struct {
	Requests int
	Seconds  float64
	P50, P99 float64       // milliseconds
	Bytes    int           // of bodies
	CPU      time.Duration // of the server
}

func (r result) rate() float64 { return float64(r.Requests) / r.Seconds }
func (r result) cost() float64 { return float64(r.CPU.Microseconds()) / float64(r.Requests) }

// load puts load on a server.
func (l *lab) load(s *server, args ...string) (r result, err error) {
	before, err := s.cpu()
	if err != nil {
		return r, err
	}
	out, err := l.output("", l.path("load"), append([]string{"-addr", s.addr}, args...)...)
	if err != nil {
		return r, fmt.Errorf("%s: %w", s.name, err)
	}
	after, err := s.cpu()
	if err != nil {
		return r, err
	}
	r.CPU = after - before
	if err := json.Unmarshal(out, &r); err != nil {
		return r, err
	}
	if r.Requests == 0 {
		return r, fmt.Errorf("%s answered nothing", s.name)
	}
	return r, nil
}

// full is load for as long as a run of a pair takes, and writes the server's
// profile meanwhile if that is wanted.
func (l *lab) full(s *server, args ...string) (result, error) {
	if *profile != "" && s.admin != "" {
		defer s.profile().Wait()
	}
	return l.load(s, append(args, "-duration", duration().String())...)
}

// profile writes a CPU profile of a Caddy, of the seconds from now.
func (s *server) profile() *sync.WaitGroup {
	var writing sync.WaitGroup
	writing.Go(func() {
		answer, err := http.Get(fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%.0f", s.admin, max(1, *seconds-1)))
		if err == nil {
			defer answer.Body.Close()
			var file *os.File
			if file, err = os.Create(filepath.Join(*profile, s.name+".pprof")); err == nil {
				defer file.Close()
				_, err = io.Copy(file, answer.Body)
			}
		}
		if err != nil {
			log.Print("profile: ", err)
		}
	})
	return &writing
}
