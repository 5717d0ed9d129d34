// Package redistest runs real redis-servers for tests.
package redistest

import (
	"bufio"
	_ "embed"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Server is a redis-server of the test's own. It ends with the test.
type Server struct {
	Addr  string // host:port, on loopback
	clock string
	cmd   *exec.Cmd
}

// Start runs a redis-server on a free port, with further arguments in the form
// of its command line ("--maxmemory", "1mb"), and returns when it serves.
func Start(tb testing.TB, args ...string) *Server {
	tb.Helper()
	return start(tb, nil, args)
}

// StartOn is Start at an address where one was before, or will be looked for.
func StartOn(tb testing.TB, addr string, args ...string) *Server {
	tb.Helper()
	s, err := try(tb, addr, nil, args)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// StartSentinel runs a Sentinel on a free port with a configuration file, which
// it writes to.
func StartSentinel(tb testing.TB, config string) *Server {
	tb.Helper()
	return start(tb, nil, []string{config, "--sentinel"})
}

// FreePort is a port on loopback that is the test's own to its end.
func FreePort(tb testing.TB) string {
	tb.Helper()
	_, port, err := net.SplitHostPort(freeAddr(tb))
	if err != nil {
		tb.Fatal(err)
	}
	return port
}

// StartWithClock is Start for a redis-server whose clock stands still until
// Advance moves it.
func StartWithClock(tb testing.TB, args ...string) *Server {
	tb.Helper()
	dir := tb.TempDir()
	clock, shim := filepath.Join(dir, "clock"), filepath.Join(dir, "clock.so")
	s := &Server{clock: clock}
	s.set(tb, time.Now())
	library, err := buildClock()
	if err != nil {
		tb.Fatal(err)
	}
	if err := os.WriteFile(shim, library, 0o600); err != nil {
		tb.Fatal(err)
	}
	started := start(tb, []string{"LD_PRELOAD=" + shim, "REDISTEST_CLOCK=" + clock}, args)
	started.clock = clock
	return started
}

// Advance moves the clock of a server made by StartWithClock, on or back.
func (s *Server) Advance(tb testing.TB, d time.Duration) {
	tb.Helper()
	b, err := os.ReadFile(s.clock)
	if err != nil {
		tb.Fatal(err)
	}
	s.set(tb, time.UnixMicro(int64(binary.NativeEndian.Uint64(b))).Add(d))
}

func (s *Server) set(tb testing.TB, now time.Time) {
	tb.Helper()
	f, err := os.OpenFile(s.clock, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(binary.NativeEndian.AppendUint64(nil, uint64(now.UnixMicro())), 0); err != nil {
		tb.Fatal(err)
	}
}

// Kill ends the server as a crash would.
func (s *Server) Kill() {
	s.cmd.Process.Kill()
	s.cmd.Wait()
}

// Pause stops the server without closing anything: it no longer answers.
func (s *Server) Pause() { s.cmd.Process.Signal(syscall.SIGSTOP) }

// Resume undoes Pause.
func (s *Server) Resume() { s.cmd.Process.Signal(syscall.SIGCONT) }

func start(tb testing.TB, env, args []string) *Server {
	tb.Helper()
	// The port that servers of a Cluster have besides may be taken: then try the next.
	var err error
	for range 5 {
		var s *Server
		if s, err = try(tb, freeAddr(tb), env, args); err == nil {
			return s
		}
	}
	tb.Fatal(err)
	return nil
}

// freeAddr is below the ports that the kernel gives to clients (32768 and more): a
// connection of another test, from another loopback address, would be in the way of a
// server on all addresses. In a Cluster a server takes a second port, 10000 more.
func freeAddr(tb testing.TB) string {
	tb.Helper()
	for {
		socket, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			tb.Fatal(err)
		}
		port := 10_000 + rand.IntN(12_000)
		switch err := syscall.Bind(socket, &syscall.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}); err {
		case nil:
		case syscall.EADDRINUSE:
			syscall.Close(socket)
			continue
		default:
			tb.Fatal(err)
		}
		// Bound and not listening, it is in nobody's way who names the port and says this.
		if err := syscall.SetsockoptInt(socket, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { syscall.Close(socket) })
		return fmt.Sprintf("127.0.0.1:%d", port)
	}
}

func try(tb testing.TB, addr string, env, args []string) (*Server, error) {
	path, err := exec.LookPath("redis-server")
	if err != nil {
		tb.Fatalf("redis-server is needed (Debian: apt-get install redis-server): %v", err)
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	ready := "Ready to accept connections"
	own := []string{"--port", port, "--bind", "127.0.0.1", "--dir", tb.TempDir()}
	if slices.Contains(args, "--sentinel") {
		ready = "Sentinel ID is"
		args = slices.Concat(args[:1], own, args[1:]) // its file comes first
	} else {
		args = slices.Concat(own, []string{"--save", ""}, args)
	}
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	var log strings.Builder
	for lines := bufio.NewScanner(out); lines.Scan(); {
		fmt.Fprintln(&log, lines.Text())
		if strings.Contains(lines.Text(), ready) {
			go func() {
				for lines.Scan() { // keep its log flowing
				}
			}()
			s := &Server{Addr: addr, cmd: cmd}
			tb.Cleanup(s.Kill)
			return s, nil
		}
	}
	cmd.Wait()
	return nil, fmt.Errorf("redis-server did not start:\n%s", log.String())
}

//go:embed clock/clock.c
var clockSource string

// buildClock compiles clock.c once for the process.
var buildClock = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "redistest")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	source, shim := filepath.Join(dir, "clock.c"), filepath.Join(dir, "clock.so")
	if err := os.WriteFile(source, []byte(clockSource), 0o600); err != nil {
		return nil, err
	}
	if out, err := exec.Command("cc", "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o", shim, source).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building the clock (Debian: apt-get install gcc): %w\n%s", err, out)
	}
	return os.ReadFile(shim)
})
