package e2e

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/streamguard/streamguard/redisstore/redistest"
)

// The first command of the README, on a terminal: it says what it does, and in the
// end what to do, in lines to read; and Ctrl-C is no error.
func TestMakeRunSaysWhatToDo(t *testing.T) {
	t.Parallel()
	binary, err := build()
	if err != nil {
		t.Fatal(err)
	}
	dir, port := t.TempDir(), redistest.FreePort(t)
	for _, name := range []string{"Makefile", "Caddyfile.example"} {
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(strings.ReplaceAll(string(text), "8090", port)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// What it builds has been built.
	for _, name := range []string{"bin", "tools"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "tools", "go"), []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, to := range map[string]string{"bin/caddy": binary, "demo": root + "/demo", "testdata": root + "/testdata"} {
		to, err := filepath.Abs(to)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "script", "-qefc", "make run", "/dev/null")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HOME="+dir, "CADDY_ADMIN="+socket(t), "MAKEFLAGS=", "MAKELEVEL=", "PATH="+filepath.Join(dir, "tools")+":"+os.Getenv("PATH"))
	terminal := &journal{serving: make(chan struct{})}
	cmd.Stdout = terminal
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("script is needed (Debian: apt-get install bsdutils): %v", err)
	}
	next := "Open http://localhost:" + port + "/ and press play on all four devices."
	eventually(t, "make run says what to do", func() bool { return strings.Contains(terminal.String(), next) })
	n := &node{addr: "127.0.0.1:" + port, client: http.DefaultClient}
	n.want(t, 200, "", "GET", "/media/cmaf/master.m3u8", "")
	if _, err := stdin.Write([]byte{3}); err != nil { // Ctrl-C
		t.Fatal(err)
	}
	cmd.Wait()
	said := terminal.String()
	if ctx.Err() != nil || !strings.HasPrefix(said, "Building Caddy") || !strings.Contains(said, "shutdown complete") {
		t.Errorf("make run cannot be interrupted, or does not say what it builds:\n%s", said)
	}
	for _, word := range []string{"Error", `"level":`, "panic", "another process"} {
		if strings.Contains(said, word) {
			t.Errorf("make run says %q:\n%s", word, said)
		}
	}
}
