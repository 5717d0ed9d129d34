package e2e

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/streamguard/streamguard/redisstore/redistest"
)

// nginx runs Debian's nginx in front of a node, and returns the node as it is seen
// from there. Further lines go to its http block and to its location.
func nginx(t *testing.T, behind *node, http, location string) *node {
	t.Helper()
	binary, err := exec.LookPath("nginx")
	if err != nil {
		binary = "/usr/sbin/nginx" // not in everybody's PATH
	}
	front := &node{addr: "127.0.0.1:" + redistest.FreePort(t), client: behind.client}
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;\n"
	}
	var temporary strings.Builder
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		temporary.WriteString(kind + "_temp_path " + kind + ";\n")
	}
	config := file(t, "nginx.conf", user+`
daemon off;
worker_processes 1;
error_log stderr;
pid pid;
events {}
http {
	access_log off;
	`+temporary.String()+http+`
	server {
		listen `+front.addr+`;
		location / {
			proxy_pass http://`+behind.addr+`;`+location+`
		}
	}
}`)
	ctx, stop := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, binary, "-e", "stderr", "-p", t.TempDir(), "-c", config)
	var log journal
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatalf("nginx is needed (Debian: apt-get install nginx-light): %v", err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(os.Interrupt)
		cmd.Wait()
		stop()
		if t.Failed() {
			t.Logf("nginx' log:\n%s", &log)
		}
	})
	eventually(t, "nginx answers", func() bool {
		_, err := front.send("", "GET", "/", "")
		return err == nil
	})
	return front
}

// nginx as it comes says nothing about the host and the address that a request was
// for and came from. Every playback behind it is one.
func TestNginxInFrontAsItComes(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	n := start(t, s.site(inRedis(redistest.Start(t)), "playback auto"))
	front := nginx(t, n, "", "")
	players := []playback{
		{"hls", hlsCMAF, "hls"},
		{"dash", mpd, "dash"},
		{"shaka", tuned(liveTS, "shaka"), "shaka"},
		{"video", hlsTS, "video"},
		{"native", hlsTS, "native"},
	}
	t.Run("", func(t *testing.T) {
		for _, p := range players {
			t.Run(p.user, func(t *testing.T) {
				t.Parallel()
				watchAll(t, s, front, p)
			})
		}
		t.Run("ffmpeg", func(t *testing.T) {
			t.Parallel()
			two := []*viewer{front.watch(t, "ffmpeg", mpd, endless), front.watch(t, "ffmpeg", mpd, endless)}
			front.holds(t, "ffmpeg", 2)
			front.goOn(t, "ffmpeg", two...)
			front.holds(t, "ffmpeg", 2)
		})
	})
	for _, p := range players {
		n.neverHeldTwo(t, p.user)
	}
}
