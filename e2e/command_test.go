package e2e

import (
	"net"
	"os"
	"strings"
	"testing"

	"github.com/streamguard/streamguard/redisstore/redistest"
)

func TestCaddyThatCannotStartSaysWhyAndFails(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	missing := t.TempDir() + "/ca.pem"
	empty := file(t, "empty.pem", "")
	for name, test := range map[string]struct {
		config string
		says   []string
	}{
		"port in use": {
			strings.ReplaceAll(site(files), ":8090", ":"+port),
			[]string{":" + port, "address already in use"},
		},
		"unknown store":           {site(files, "store nosuch"), []string{"nosuch", "stream_guard"}},
		"unreadable TLS file":     {site(files, "store redis {\ntls {\nca "+missing+"\n}\n}"), []string{"tls: ca", missing, "no such file"}},
		"TLS file without a cert": {site(files, "store redis {\ntls {\nca "+empty+"\n}\n}"), []string{"tls: ca", empty}},
		"no user":                 {":8090 {\nstream_guard {\nlimit 3\n}\n}\n", []string{"user", "required"}},
	} {
		t.Run(name, func(t *testing.T) {
			out, code := run(t, "run", "--adapter", "caddyfile", "--config", file(t, "Caddyfile", test.config))
			if code == 0 {
				t.Errorf("Caddy ended well: %s", out)
			}
			lines := strings.Split(strings.TrimSpace(out), "\n")
			for _, word := range test.says {
				if last := lines[len(lines)-1]; !strings.Contains(last, word) {
					t.Errorf("Caddy's last words have no %q: %s", word, last)
				}
			}
			if strings.Contains(out, "panic") || strings.Contains(out, "DATA RACE") {
				t.Errorf("Caddy's log: %s", out)
			}
		})
	}
}

func TestExampleIsValidAndFormatted(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"validate", "--config", "Caddyfile.example"}, {"fmt", "--diff", "Caddyfile.example"}} {
		if out, code := run(t, args...); code != 0 {
			t.Errorf("caddy %s fails: %s", strings.Join(args, " "), out)
		}
	}
}

func TestExamplePlaysAndRefusesTheFourth(t *testing.T) {
	eachStore(t, func(t *testing.T, store string) {
		config := example(t)
		const redisLine = "#store redis redis://127.0.0.1:6379"
		if store != "store memory" {
			if !strings.Contains(config, redisLine) {
				t.Fatalf("Caddyfile.example has no line %q", redisLine)
			}
			config = strings.Replace(config, redisLine, store, 1)
		}
		n := start(t, config)
		if out, err := n.play(t, "", "/media/cmaf/master.m3u8"); err != nil {
			t.Fatalf("the example does not play: %v\n%s", err, out)
		}
		for _, g := range n.guards(t, "").Guards {
			n.want(t, 204, "demo", "DELETE", "/guards/"+g.GuardID, "")
		}
		var three []*viewer
		for range 3 {
			three = append(three, n.watch(t, "", "/media/cmaf/master.m3u8", realTime))
		}
		n.playRefused(t, "", "/media/ts/master.m3u8")
		refused(t, n.ask(t, "demo", "GET", "/media/ts/master.m3u8", ""), 3)
		for _, v := range three {
			v.playing(t)
		}
		if out, err := n.play(t, "alice", "/media/cmaf/master.m3u8"); err != nil {
			t.Errorf("another user is refused: %v\n%s", err, out)
		}
	})
}

// The Redis line of the example as it stands there.
func TestExampleWithItsRedisLine(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	n := start(t, strings.NewReplacer("#store redis", "store redis", "127.0.0.1:6379", s.Addr).Replace(example(t)))
	n.want(t, 200, "", "GET", "/media/cmaf/master.m3u8", "")
}

func example(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(root + "/Caddyfile.example")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
