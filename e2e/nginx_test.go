package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
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

// nginx and Caddy as docs/configuration.md has them, on one machine.
func TestNginxInFrontAsDocumented(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile(root + "/docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	_, recipe, _ := strings.Cut(string(doc), "### Behind nginx or a load balancer\n")
	block := func(language string) string {
		_, text, _ := strings.Cut(recipe, "```"+language+"\n")
		text, _, closed := strings.Cut(text, "```\n")
		if !closed {
			t.Fatalf("the recipe has no block of %s", language)
		}
		return text
	}
	location := ""
	for line := range strings.Lines(block("nginx")) {
		if strings.Contains(line, "proxy_set_header") {
			location += line
		}
	}
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/vnd.apple.mpegurl")
		fmt.Fprintf(w, "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\nhttp://%s/films/alien/1.ts\n", r.Host)
	}))
	defer origin.Close()
	caddyfile := strings.NewReplacer("http://:8080", ":8090", "origin:8080", origin.Listener.Addr().String()).Replace(block("caddyfile"))
	n := start(t, strings.Replace(caddyfile, "\treverse_proxy", "\tlog\n\treverse_proxy", 1))
	front := nginx(t, n, "", location)

	// The site knows its own name, so an absolute URL gets a token.
	const film = "/films/alien/master.m3u8"
	manifest := front.want(t, 200, "alice", "GET", film, "")
	folder, _ := strings.CutSuffix(manifest.url.Path, "master.m3u8")
	if segment := "http://" + front.addr + folder + "1.ts"; !strings.Contains(folder, "/~") || !strings.Contains(manifest.body, segment) {
		t.Errorf("%s says %s, want %s", manifest.url, manifest.body, segment)
	}
	// Clients are told apart, and not by what they say themselves.
	front.want(t, 200, "alice", "GET", film, "", "X-Forwarded-For", "192.0.2.1")
	from2 := &node{addr: front.addr, client: &http.Client{Timeout: patience, Transport: &http.Transport{
		DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}).DialContext,
	}}}
	defer from2.client.CloseIdleConnections()
	from2.want(t, 200, "alice", "GET", film, "", "X-Forwarded-For", "192.0.2.1")
	n.stop()
	clients := make(map[string]bool)
	for line := range strings.Lines(n.log.String()) {
		var a struct {
			Request struct {
				ClientIP string `json:"client_ip"`
				Host     string `json:"host"`
			} `json:"request"`
		}
		if json.Unmarshal([]byte(line), &a) == nil && a.Request.ClientIP != "" && a.Request.Host == front.addr {
			clients[a.Request.ClientIP] = true
		}
	}
	if want := map[string]bool{"127.0.0.1": true, "127.0.0.2": true}; !maps.Equal(clients, want) {
		t.Errorf("clients are %v, want %v", clients, want)
	}
}
