package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/streamguard/streamguard/redisstore/redistest"
)

// In docs/admin.md the sessions after a Caddyfile are with a Caddy that runs it.
func TestAdminExamples(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile(root + "/docs/admin.md")
	if err != nil {
		t.Fatal(err)
	}
	const fence = "```caddyfile\n"
	parts := strings.Split(string(b), fence)
	lines := strings.Count(parts[0], "\n")
	if len(parts) < 3 {
		t.Fatalf("docs/admin.md has %d Caddyfiles", len(parts)-1)
	}
	for _, part := range parts[1:] {
		caddyfile, text, ok := strings.Cut(part, "```\n")
		if !ok {
			t.Fatal("docs/admin.md: a Caddyfile does not end")
		}
		examples, err := sessions(text)
		if err != nil {
			t.Fatalf("docs/admin.md: %v", err)
		}
		for _, e := range examples {
			e.line += lines + strings.Count(fence+caddyfile+"```\n", "\n")
		}
		start(t, caddyfile).prints(t, "docs/admin.md", examples)
		lines += strings.Count(fence+part, "\n")
	}
}

// operate runs caddy stream-guard against the node.
func (n *node) operate(t *testing.T, args ...string) (output string, code int) {
	t.Helper()
	return run(t, append([]string{"stream-guard", "--address", n.admin}, args...)...)
}

// operateWell insists that it ends well.
func (n *node) operateWell(t *testing.T, args ...string) string {
	t.Helper()
	out, code := n.operate(t, args...)
	if code != 0 {
		t.Fatalf("caddy stream-guard %q ends with %d: %s", args, code, out)
	}
	return out
}

var operations = [][]string{{"list", "alice"}, {"revoke", "alice"}, {"revoke", "alice", "6e2fb550-c457-11e9-bb97-0800200c9a66"}, {"top"}, {"top", "--json"}, {"check"}, {"report"}, {"observe"}, {"observe", "--undo"}}

func TestCommandsAgainstNoCaddySayItPlainly(t *testing.T) {
	t.Parallel()
	address := socket(t)
	for _, args := range operations {
		out, code := run(t, append([]string{"stream-guard", "--address", address}, args...)...)
		if code != 1 || !strings.HasPrefix(out, "Error: no Caddy answers at "+address) || strings.Count(out, "\n") != 1 {
			t.Errorf("caddy stream-guard %q ends with %d: %s", args, code, out)
		}
		// $CADDY_ADMIN is where it looks without --address, as all of Caddy's commands do.
		if out, code := run(t, append([]string{"stream-guard"}, args...)...); code != 1 || !strings.Contains(out, "no Caddy answers at unix/") {
			t.Errorf("caddy stream-guard %q without --address ends with %d: %s", args, code, out)
		}
	}
}

func TestAdminOffBreaksNothingElse(t *testing.T) {
	t.Parallel()
	n := start(t, "{\n\tadmin off\n}\n"+site(files, "limit 1", "playback auto"))
	n.watch(t, "alice", "/media/cmaf/master.m3u8", realTime)
	refused(t, n.ask(t, "alice", "GET", "/media/ts/90/000.ts", ""), 1)
	off := file(t, "Caddyfile", "{\n\tadmin off\n}\n"+site(files))
	for _, args := range operations {
		if out, code := n.operate(t, args...); code != 1 || !strings.Contains(out, "no Caddy answers") {
			t.Errorf("caddy stream-guard %q ends with %d: %s", args, code, out)
		}
		// With the config itself no other Caddy is asked, which may be at the default address.
		if out, code := run(t, append([]string{"stream-guard", "--config", off}, args...)...); code != 1 || !strings.Contains(out, off+" says admin off") || strings.Contains(out, "answers at") {
			t.Errorf("caddy stream-guard %q ends with %d: %s", args, code, out)
		}
	}
	if held := n.guards(t, "alice"); len(held.Guards) != 1 {
		t.Errorf("alice holds %+v", held)
	}
}

func TestCommandsMeetTheirMistakesWithExitCode1(t *testing.T) {
	t.Parallel()
	n := start(t, site(files))
	n.want(t, 200, "alice", "GET", target, "")
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"list", "nobody"}, `Error: user "nobody" holds no guards`},
		{[]string{"list", "no\nbody\x1b[31m"}, `Error: user "no\nbody\x1b[31m" holds no guards`},
		{[]string{"revoke", "nobody"}, `Error: user "nobody" holds no guards`},
		{[]string{"revoke", "alice", "6e2fb550-c457-11e9-bb97-0800200c9a66"}, `Error: user "alice" holds no guard 6e2fb550`},
		{[]string{"revoke", "alice", "7\x1b"}, `Error: guard id "7\x1b" is not a UUID`},
		{[]string{"revoke", "alice", "--store", "x"}, `Error: there is no store "x"; in use: "memory"`},
		{[]string{"observe", "--site", "x\x1b"}, `Error: there is no site "x\x1b" with a stream_guard; there is ":`},
		{[]string{"observe", "x"}, `Error: unknown command "x"`},
		{[]string{"list"}, "Error: accepts 1 arg(s)"},
		{[]string{"list", ""}, "Error: user: has 0 bytes"},
		{[]string{"revoke"}, "Error: accepts between 1 and 2 arg(s)"},
		{[]string{"top", "-n", "0"}, `Error: n: "0" is not`},
		{[]string{"top", "x"}, "Error: "},
		{[]string{"nosuch"}, `Error: unknown command "nosuch"`},
		{[]string{"check", "--config", file(t, "Caddyfile", site(files, "limit x"))}, `limit: "x" is not`},
		{[]string{"check", "--config", "nosuch"}, "nosuch: no such file"},
	} {
		out, code := n.operate(t, c.args...)
		if code != 1 || !strings.Contains(out, c.says) || strings.ContainsAny(out, "\x1b") {
			t.Errorf("caddy stream-guard %q ends with %d, want 1 and %q\n%q", c.args, code, c.says, out)
		}
	}
	if held := n.guards(t, "alice"); len(held.Guards) != 1 {
		t.Errorf("alice holds %+v", held)
	}
	n.reloadWell(t, ":8090 {\n\trespond ok\n}\n")
	// Nobody is to think that nobody watches.
	for _, args := range operations {
		eventually(t, fmt.Sprintf("%q finds no gate", args), func() bool { // the store is closed in the background
			out, code := n.operate(t, args...)
			return code == 1 && out == "Error: the running config has no stream_guard\n"
		})
	}
}

// What viewers can write into their guards does not get at the operator's
// terminal.
func TestViewersCannotWriteOnTheOperatorsTerminal(t *testing.T) {
	t.Parallel()
	n := start(t, site("respond ok", "stream {query.stream}", "device {query.device}", "label l {query.l}"))
	const evil = "%1b]0;owned%07%9b31m%c2%9b1m%e2%80%ae%0aroot"
	for _, user := range []string{"alice", "e\u202evil", "\xff\xfe"} {
		n.want(t, 200, user, "GET", "/a/b/1.ts?stream="+evil+"&device="+evil+"&l="+evil, "")
	}
	var top []struct {
		Top []struct{ User, Path string }
	}
	if err := json.Unmarshal([]byte(n.operateWell(t, "top", "--json")), &top); err != nil || len(top) != 1 || len(top[0].Top) != 3 {
		t.Fatalf("%v in %+v", err, top)
	}
	for _, args := range [][]string{
		{"list", "alice"}, {"list", "alice", "--json"}, {"list", "e\u202evil"}, {"list", "\xff\xfe"},
		{"top"}, {"top", "--json"}, {"check"}, {"revoke", "e\u202evil"}, {"revoke", "\xff\xfe", "--json"},
	} {
		out := n.operateWell(t, args...)
		for _, r := range out {
			if r < ' ' && r != '\n' && r != '\t' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == '\u202e' {
				t.Errorf("caddy stream-guard %q prints %q", args, out)
				break
			}
		}
	}
	if out := n.operateWell(t, "top"); strings.Contains(out, "vil") || !strings.Contains(out, "alice") {
		t.Errorf("after the revocations: %s", out)
	}
}

func TestARevocationIsFeltByAViewerOfAnotherNode(t *testing.T) {
	t.Parallel()
	// Without the news of it the other node would go on for three minutes, which
	// is longer than this test waits.
	a, b := pair(t, monitored(inRedis(redistest.Start(t)), "playback auto", "interval 10m", "ttl 15m"))
	viewer := b.watch(t, "alice", mpd, endless)
	opened := b.want(t, 200, "alice", "GET", "/media/cmaf/master.m3u8", "")
	segment := strings.TrimSuffix(opened.url.Path, "master.m3u8") + "s0/001.m4s"
	b.want(t, 200, "alice", "GET", segment, "")
	b.want(t, 200, "alice", "GET", segment, "")
	var other string
	for _, g := range b.guards(t, "alice").Guards {
		if g.GuardID != viewer.guard {
			other = g.GuardID
		}
	}

	a.operateWell(t, "revoke", "alice", viewer.guard)
	b.want(t, 200, "alice", "GET", segment, "") // the other goes on
	a.operateWell(t, "revoke", "alice", other)
	revoked := time.Now()
	eventually(t, "the other node refuses", func() bool {
		answer := b.ask(t, "alice", "GET", segment, "")
		return answer.status == 429 && strings.Contains(answer.body, "GUARD_REVOKED")
	})
	t.Logf("felt %v after the end of the command", time.Since(revoked))
	if held := b.guards(t, "alice"); len(held.Guards) != 0 {
		t.Errorf("alice holds %+v", held)
	}
	eventually(t, "the player that was revoked is refused its next segment", func() bool {
		for line := range strings.Lines(b.log.String()) {
			if strings.Contains(line, viewer.guard) && strings.Contains(line, `"status":429`) {
				return true
			}
		}
		return false
	})
}

// On a terminal top goes on until it is interrupted.
func TestTopRefreshesOnATerminal(t *testing.T) {
	t.Parallel()
	script, err := exec.LookPath("script")
	if err != nil {
		t.Fatalf("script is needed (Debian: apt-get install bsdutils): %v", err)
	}
	if out, err := exec.Command(script, "-qec", "true", "/dev/null").CombinedOutput(); err != nil {
		t.Fatalf("a terminal is needed (mount -t devpts devpts /dev/pts): %v\n%s", err, out)
	}
	n := start(t, site(files))
	n.want(t, 200, "alice", "GET", target, "")
	binary, err := build()
	if err != nil {
		t.Fatal(err)
	}
	terminal := &journal{serving: make(chan struct{})}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, script, "-qefc", binary+" stream-guard top --address "+n.admin, "/dev/null")
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
	cmd.Stdout = terminal
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	screens := func(word string) int { return strings.Count(terminal.String(), word) }
	eventually(t, "top shows alice", func() bool { return screens("alice") > 0 })
	n.want(t, 200, "bob", "GET", target, "")
	eventually(t, "top shows bob too", func() bool { return screens("bob") > 0 && screens("\x1b[2J") > 1 })
	if _, err := stdin.Write([]byte{3}); err != nil { // Ctrl-C
		t.Fatal(err)
	}
	cmd.Wait()
	if ctx.Err() != nil {
		t.Error("top cannot be interrupted")
	}
	// Elsewhere it shows once, and so it does if it is asked to.
	for _, args := range [][]string{{"top"}, {"top", "--once"}} {
		if out := n.operateWell(t, args...); strings.Contains(out, "\x1b") || !strings.Contains(out, "bob") {
			t.Errorf("caddy stream-guard %q: %q", args, out)
		}
	}
}

func TestObservingSaysWhatALimitWouldHaveRefused(t *testing.T) {
	eachStore(t, func(t *testing.T, store string) {
		config := site(files, store, "mode observe", "limit 2")
		n := start(t, config)
		play := func(user string, sessions ...string) {
			for _, s := range sessions {
				n.want(t, 200, user, "GET", "/media/cmaf/master.m3u8", "", "CMCD-Session", `sid="`+s+`"`)
				n.want(t, 200, user, "GET", "/media/cmaf/s0/001.m4s", "", "CMCD-Session", `sid="`+s+`"`)
			}
		}
		play("alice", "1", "2", "3", "4")
		play("bob", "1", "2")
		for range 3 {
			n.want(t, 201, "carol", "POST", "/guards", "{}")
		}
		n.reloadWell(t, site(files, store, "mode observe", "limit 1"))
		eventually(t, "the new limit", func() bool { return n.guards(t, "alice").Limit == 1 })
		play("alice", "5")
		out := n.operateWell(t, "report")
		_, table, _ := strings.Cut(out, "\n")
		want := "LIMIT  USERS  PLAYBACKS  SHARE\n1      3      7          70.00 %\n2      2      4          40.00 %\n3      1      2          20.00 %\n4      1      1          10.00 %\n5      0      0          0.00 %\n"
		if !strings.Contains(out, "10 playbacks started since") || !strings.HasPrefix(table, want) {
			t.Errorf("%s\nwant\n%s", out, want)
		}
		// Back to enforcing: who plays goes on, one more is refused.
		n.reloadWell(t, site(files, store, "limit 2"))
		eventually(t, "the limit is enforced", func() bool {
			return n.ask(t, "alice", "GET", "/media/cmaf/master.m3u8", "", "CMCD-Session", `sid="6"`, "User-Agent", "another").status == 429
		})
		n.want(t, 200, "alice", "GET", "/media/cmaf/s0/001.m4s", "", "CMCD-Session", `sid="4"`)
		would := 0
		for _, a := range n.accesses(t, "alice") {
			if a.Gate.Verdict == "would_reject" {
				would++
			}
		}
		if would != 3 {
			t.Errorf("the access log has would_reject %d times, want 3", would)
		}
	})
}
