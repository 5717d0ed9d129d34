package e2e

import (
	"context"
	"encoding/hex"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/streamguard/streamguard/redisstore/redistest"
)

// haproxy runs HAProxy in front of a node, and returns the node as it is seen from
// there. It closes connections to the node that nobody has used for a moment.
func haproxy(t *testing.T, behind *node, frontend string) *node {
	t.Helper()
	binary, err := exec.LookPath("haproxy")
	if err != nil {
		binary = "/usr/sbin/haproxy" // not in everybody's PATH
	}
	front := &node{addr: "127.0.0.1:" + redistest.FreePort(t), client: &http.Client{Timeout: patience, Transport: new(http.Transport)}}
	config := file(t, "haproxy.cfg", `
defaults
	mode http
	timeout connect 10s
	timeout client 120s
	timeout server 120s
frontend clients
	bind `+front.addr+`
	`+frontend+`
	default_backend node
backend node
	http-reuse always
	server node `+behind.addr+` pool-purge-delay 100ms
`)
	ctx, stop := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, binary, "-db", "-f", config)
	var log journal
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatalf("HAProxy is needed (Debian: apt-get install haproxy): %v", err)
	}
	t.Cleanup(func() {
		front.client.CloseIdleConnections()
		stop()
		cmd.Wait()
		if t.Failed() {
			t.Logf("HAProxy's log:\n%s", &log)
		}
	})
	eventually(t, "HAProxy answers", func() bool {
		a, err := front.send("", "GET", "/", "")
		return err == nil && a.status != http.StatusServiceUnavailable
	})
	return front
}

// connections is how many there are to an address, as the kernel has it (proc(5)).
func connections(t *testing.T, addr string) (established int) {
	t.Helper()
	tcp, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	a := netip.MustParseAddrPort(addr)
	ip := a.Addr().AsSlice()
	slices.Reverse(ip)
	local := strings.ToUpper(fmt.Sprintf("%s:%04x", hex.EncodeToString(ip), a.Port()))
	for line := range strings.Lines(string(tcp)) {
		if of := strings.Fields(line); len(of) > 3 && of[1] == local && of[3] == "01" {
			established++
		}
	}
	return established
}

// What HAProxy closes when it is idle says nothing of its clients: as a trusted proxy,
// and by the header that it sends. Its client keeps its own connection meanwhile.
func TestHAProxyClosesNothing(t *testing.T) {
	t.Parallel()
	config := site(files, inRedis(redistest.Start(t)), "limit 1")
	trusting := start(t, "{\n\tservers {\n\t\ttrusted_proxies static 127.0.0.0/8\n\t}\n}\n"+config)
	n := start(t, config)
	pause := func(user string, n, front *node) {
		t.Helper()
		for _, segment := range []string{"001", "002", "003"} {
			front.want(t, 200, user, "GET", "/media/cmaf/s0/"+segment+".m4s", "")
		}
		n.client.CloseIdleConnections()
		eventually(t, "HAProxy has closed its connections", func() bool { return connections(t, n.addr) == 0 })
	}
	pause("trusted", trusting, haproxy(t, trusting, ""))
	pause("forwarded", n, haproxy(t, n, "option forwardfor"))
	pause("unknown", n, haproxy(t, n, "")) // this would be a client of its own
	state := func(user string) string {
		held := n.guards(t, user)
		if len(held.Guards) != 1 {
			t.Fatalf("%s holds %+v", user, held)
		}
		return held.Guards[0].State
	}
	eventually(t, "what closes its connections is over", func() bool { return state("unknown") == "closed" })
	for _, user := range []string{"trusted", "forwarded"} {
		if is := state(user); is != "active" {
			t.Errorf("the guard of %s is %s", user, is)
		}
		refused(t, n.ask(t, user, "POST", "/guards", "", "User-Agent", "another"), 1)
	}
}

// Players whose connections are closed again and again while they play, by themselves or
// by a proxy that nobody trusts, play on untouched beside starts at the limit.
func TestPlayersWhoseConnectionsAreClosedPlayOn(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	n := start(t, s.site(inRedis(redistest.Start(t)), "playback auto", "limit 2", "interval 3s", "ttl 90s"))
	behind := func(keepalive, more string) *node {
		upstream := "upstream node {\n\t\tserver " + n.addr + ";\n\t\tkeepalive 8;\n\t\tkeepalive_timeout " + keepalive + ";\n\t}"
		return nginx(t, &node{addr: "node", client: n.client}, upstream, "\nproxy_http_version 1.1;\nproxy_set_header Connection \"\";\nproxy_set_header Host $http_host;\n"+more)
	}
	viewers := make(map[string][]*viewer)
	for user, test := range map[string]struct {
		front *node
		input []string
	}{
		"nginx-with-keep-alive":          {behind("60s", ""), realTime},
		"nginx-that-says-for-whom":       {behind("1s", "proxy_set_header X-Forwarded-For $remote_addr;"), realTime},
		"without-persistent-connections": {n, append([]string{"-http_persistent", "0"}, realTime...)},
	} {
		for range 2 {
			viewers[user] = append(viewers[user], test.front.watch(t, user, tuned(liveTS, user), test.input))
		}
	}
	segments := func() int {
		asked := make(map[string]int)
		for user := range viewers {
			for _, v := range viewers[user] {
				asked[v.guard] = 0
				for line := range strings.Lines(n.log.String()) {
					if strings.Contains(line, v.guard) && strings.Contains(line, ".ts\"") {
						asked[v.guard]++
					}
				}
			}
		}
		return slices.Min(slices.Collect(maps.Values(asked)))
	}
	before := segments()
	eventually(t, "all have played some segments", func() bool {
		for user := range viewers {
			refused(t, n.ask(t, user, "POST", "/guards", `{"streamId":"next"}`, "User-Agent", "another"), 2)
		}
		return segments() >= before+2
	})
	for user := range viewers {
		n.goOn(t, user, viewers[user]...)
		n.holds(t, user, 2)
	}
}

// A player that is paused and keeps its connection keeps its slot, for as long as its
// guard lasts.
func TestPausedPlayerKeepsItsSlot(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	n := start(t, s.site(inRedis(redistest.Start(t)), "playback auto", "limit 1", "interval 3s", "ttl 90s"))
	const user, other = "127.0.5.1", "127.0.5.2"
	mpv := func(user string, more ...string) *exec.Cmd {
		cmd := n.commandLine(context.Background(), t, "mpv", user, hlsTS)
		cmd.Args = slices.Insert(cmd.Args, 1, more...)
		return cmd
	}
	paused := n.watching(t, user, mpv(user, "--pause", "--cache=no", "--demuxer-readahead-secs=1"))
	// Another one, which ends after that, is over.
	ends := n.watching(t, other, mpv(other))
	eventually(t, "it has played some segments", func() bool { return s.asked(other, ".ts") >= 2 })
	asked := s.asked(user, "")
	ends.kill()
	eventually(t, "its guard is closed", func() bool {
		held, _ := n.listed(t, other)
		g, _ := held.find(ends.guard)
		return g.State == "closed"
	})
	paused.playing(t)
	if s.asked(user, "") != asked {
		t.Error("it has asked for something, so it is not paused")
	}
	refused(t, n.ask(t, user, "POST", "/guards", "", "User-Agent", "another"), 1)
	if held := n.guards(t, user); len(held.Guards) != 1 || held.Guards[0].GuardID != paused.guard || held.Guards[0].State == "closed" {
		t.Errorf("it holds %+v, want %s", held, paused.guard)
	}
}
