package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/streamguard/streamguard/audience"
	"github.com/streamguard/streamguard/caddymodule/storage"
	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/operate"
	"github.com/streamguard/streamguard/redisstore/redistest"
)

// administer makes a call as Caddy's admin endpoint passes it on, and reads the
// answer.
func administer[A any](t *testing.T, want int, method, path, body string) (answer A, message string) {
	t.Helper()
	mux := http.NewServeMux()
	w := httptest.NewRecorder()
	for _, route := range new(Admin).Routes() {
		mux.HandleFunc(route.Pattern, func(_ http.ResponseWriter, r *http.Request) {
			if err := route.Handler.ServeHTTP(w, r); err != nil {
				e, ok := errors.AsType[caddy.APIError](err)
				if !ok {
					t.Fatalf("%s %s: error %v is no APIError", method, path, err)
				}
				w.Code, message = e.HTTPStatus, e.Err.Error()
			}
		})
	}
	mux.ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader(body)))
	if w.Code != want {
		t.Fatalf("%s %s: %d, want %d\n%s%s", method, path, w.Code, want, message, w.Body)
	}
	if want == 200 {
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
			t.Fatalf("%v in %s", err, w.Body)
		}
	}
	return answer, message
}

// Users have any bytes.
func TestOperatorsFindEveryUserAndEndAPlayback(t *testing.T) {
	withGate(t, Handler{}, func(g *site) {
		for _, user := range []string{"alice", "a/b", ".", "..", "../..", "a//b/", "%2F", "a b?c#d&e", "ü\n\x00", "\xff\xfe", "*", "users"} {
			var ids []string
			for n := range 2 {
				id := guard.NewID(user, "")
				if _, err := g.store.Keeper.Acquire(context.Background(), guard.Claim{User: user, ID: id, Stream: fmt.Sprint("s", n), Device: "tv"}, g.read.policy); err != nil {
					t.Fatal(err)
				}
				ids = append(ids, id.String())
			}
			held, _ := administer[[]operate.Guards](t, 200, "GET", operate.UserPath(user), "")
			if len(held) != 1 || !strings.HasPrefix(held[0].Store, "memory ") || len(held[0].Guards) != 2 || held[0].Guards[0].GuardID != ids[0] || held[0].Guards[1].StreamID != "s1" {
				t.Errorf("%q holds %+v", user, held)
			}
			one, _ := administer[[]operate.Guards](t, 200, "DELETE", operate.UserPath(user)+"/guards/"+ids[0], "")
			if len(one) != 1 || len(one[0].Guards) != 1 || one[0].Guards[0].GuardID != ids[0] {
				t.Errorf("of %q revoked %+v", user, one)
			}
			administer[any](t, 404, "DELETE", operate.UserPath(user)+"/guards/"+ids[0], "")
			all, _ := administer[[]operate.Guards](t, 200, "DELETE", operate.UserPath(user), "")
			if len(all) != 1 || len(all[0].Guards) != 1 || all[0].Guards[0].GuardID != ids[1] {
				t.Errorf("of %q revoked %+v", user, all)
			}
			administer[any](t, 404, "DELETE", operate.UserPath(user), "")
			administer[any](t, 404, "GET", operate.UserPath(user), "")
		}
	})
}

func TestARevokedPlaybackIsRefusedAtItsNextRequest(t *testing.T) {
	withGate(t, Handler{TTL: caddy.Duration(300e9)}, func(g *site) {
		g.get(200, "/v/x/1.ts", sid, `sid="a"`)
		g.get(200, "/v/x/2.ts", sid, `sid="a"`)
		administer[any](t, 200, "DELETE", operate.UserPath("u"), "")
		w := g.get(429, "/v/x/3.ts", sid, `sid="a"`)
		if !strings.Contains(w.Body.String(), "GUARD_REVOKED") || w.Header().Get("Retry-After") != "300" {
			t.Errorf("%v %s", w.Header(), w.Body)
		}
		g.get(200, "/v/x/1.ts", sid, `sid="b"`)
	})
}

func TestOperatorsMistakesAreNamed(t *testing.T) {
	withGate(t, Handler{}, func(g *site) {
		g.get(200, "/v/x/1.ts", sid, `sid="a"`)
		for _, c := range []struct {
			status             int
			method, path, body string
			says               string
		}{
			{404, "GET", "/stream_guard/", "", `nothing at "/stream_guard/"`},
			{404, "GET", "/stream_guard/nosuch", "", "nothing at"},
			{404, "GET", "/stream_guard/users/u/guards", "", "nothing at"},
			{404, "GET", "/stream_guard/users/nobody", "", `user "nobody" holds no guards`},
			{404, "DELETE", "/stream_guard/users/no%0Abody", "", `user "no\nbody" holds no guards`},
			{404, "DELETE", "/stream_guard/users/u/guards/6e2fb550-c457-11e9-bb97-0800200c9a66", "", `user "u" holds no guard 6e2fb550-`},
			{400, "DELETE", "/stream_guard/users/u/guards/7%0A", "", `guard id "7\n" is not a UUID`},
			{400, "GET", "/stream_guard/users/", "", "user: has 0 bytes"},
			{400, "GET", "/stream_guard/users/" + strings.Repeat("u", 257), "", "user: has 257 bytes"},
			{400, "DELETE", "/stream_guard/users/u", `{"all":true}`, "takes no body"},
			{405, "POST", "/stream_guard/users/u", "", `POST is not one of DELETE, GET`},
			{405, "DELETE", "/stream_guard/top", "", "DELETE is not one of GET"},
			{400, "GET", "/stream_guard/top?n=0", "", `n: "0" is not`},
			{400, "GET", "/stream_guard/top?n=1001", "", `n: "1001" is not`},
			{400, "GET", "/stream_guard/top?n=x", "", `n: "x" is not`},
			{400, "GET", "/stream_guard/top?n=%zz", "", "query: "},
			{404, "GET", "/stream_guard/stores?store=nosuch", "", `no store "nosuch"; in use: "memory`},
		} {
			if _, message := administer[any](t, c.status, c.method, c.path, c.body); !strings.Contains(message, c.says) {
				t.Errorf("%s %s: %q, want %q", c.method, c.path, message, c.says)
			}
		}
		g.holds(1)
	})
}

func TestTwoStoresAreEachNamed(t *testing.T) {
	redis := redistest.Start(t)
	s := serve(t, strings.NewReplacer("REDIS", redis.Addr).Replace(`
SITE {
	handle_path /a/* {
		stream_guard {
			user {header.X-User-Id}
			store memory one
			mode observe
		}
	}
	handle_path /b/* {
		stream_guard {
			user {header.X-User-Id}
			store redis redis://REDIS {
				timeout 10s
			}
		}
	}
	respond ok
}`))
	both := []string{"memory one", "redis " + redis.Addr}
	names := func(got []string, want ...string) {
		t.Helper()
		if !slices.Equal(got, want) {
			t.Errorf("stores %q, want %q", got, want)
		}
	}
	held := func(path string) (names []string) {
		answer, _ := administer[[]operate.Guards](t, 200, "GET", path, "")
		for _, part := range answer {
			names = append(names, part.Store)
		}
		return names
	}
	s.call(200, "GET", "/a/v/x/1.ts", sid, `sid="a"`)
	names(held(operate.UserPath("u")), both[0])
	s.call(200, "GET", "/b/v/x/1.ts", sid, `sid="a"`)
	names(held(operate.UserPath("u")), both...)
	names(held(operate.UserPath("u")+"?store=memory+one"), both[0])

	health, _ := administer[[]operate.Health](t, 200, "GET", "/stream_guard/stores", "")
	if len(health) != 2 || health[0].Store != both[0] || !health[0].Answers || health[0].Leases != 1 || health[1].Store != both[1] || !health[1].Answers || health[1].Leases != 1 {
		t.Errorf("health: %+v", health)
	}
	if got := health[1].Servers; len(got) != 1 || got[0].Server != redis.Addr || !got[0].Answers {
		t.Errorf("servers: %+v", got)
	}
	top, _ := administer[[]operate.Top](t, 200, "GET", "/stream_guard/top", "")
	for i, part := range top {
		if part.Store != both[i] || part.Users != 1 || part.Guards != 1 || len(part.Top) != 1 || part.Top[0].User != "u" {
			t.Errorf("top: %+v", part)
		}
	}
	report, _ := administer[[]audience.Report](t, 200, "GET", "/stream_guard/report", "")
	if len(report) != 1 || report[0].Store != both[0] || report[0].Playbacks != 1 {
		t.Errorf("report: %+v", report)
	}

	// Where it is not said, a revocation is of all stores that have the user.
	revoked, _ := administer[[]operate.Guards](t, 200, "DELETE", operate.UserPath("u"), "")
	if len(revoked) != 2 {
		t.Errorf("revoked: %+v", revoked)
	}
	s.call(429, "GET", "/b/v/x/2.ts", sid, `sid="a"`)
	s.call(200, "GET", "/a/v/x/2.ts", sid, `sid="a"`) // observed only

	// One store away: the other answers.
	s.call(200, "GET", "/a/v/x/1.ts", sid, `sid="b"`)
	redis.Kill()
	some, _ := administer[[]operate.Guards](t, 200, "GET", operate.UserPath("u"), "")
	if len(some) != 2 || some[0].Error != "" || len(some[0].Guards) != 1 || some[1].Store != both[1] || some[1].Error == "" {
		t.Errorf("with a store away: %+v", some)
	}
	if _, message := administer[any](t, 503, "GET", operate.UserPath("nobody"), ""); !strings.Contains(message, both[1]) {
		t.Errorf("with a store away: %s", message)
	}
	health, _ = administer[[]operate.Health](t, 200, "GET", "/stream_guard/stores", "")
	if !health[0].Answers || health[1].Answers || health[1].Error == "" || health[1].Servers[0].Answers || health[1].Servers[0].Error == "" {
		t.Errorf("health: %+v", health)
	}
	s.call(200, "GET", "/b/v/x/2.ts", sid, `sid="z"`)
	health, _ = administer[[]operate.Health](t, 200, "GET", "/stream_guard/stores", "")
	if health[1].LastError == nil || health[1].LastError.Error == "" {
		t.Errorf("health: %+v", health[1])
	}
	top, _ = administer[[]operate.Top](t, 200, "GET", "/stream_guard/top", "")
	if top[0].Guards != 1 || top[0].Error != "" || top[1].Error == "" {
		t.Errorf("top: %+v", top)
	}

	// A reload that drops a store drops it here, and one that changes something
	// else keeps what was observed.
	observing := "SITE {\nstream_guard {\n" + user + "store memory one\nmode observe\nlimit 1\n}\nrespond ok\n}"
	for range 2 {
		if err := s.load(observing); err != nil {
			t.Fatal(err)
		}
		report, _ = administer[[]audience.Report](t, 200, "GET", "/stream_guard/report", "")
		if len(report) != 1 || report[0].Playbacks != 2 {
			t.Errorf("after the reload: %+v", report)
		}
	}
	eventually(t, "the end of the redis store", func() bool {
		health, _ = administer[[]operate.Health](t, 200, "GET", "/stream_guard/stores", "")
		return len(health) == 1
	})
	if err := s.load("SITE {\nrespond ok\n}"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end of all stores", func() bool { return len(storage.InUse()) == 0 })
	for _, call := range [][2]string{
		{"GET", "/stream_guard/stores"}, {"GET", "/stream_guard/top"}, {"GET", "/stream_guard/report"}, {"GET", "/stream_guard/stores?store=x"},
		{"GET", operate.UserPath("u")}, {"DELETE", operate.UserPath("u")},
	} {
		if _, message := administer[any](t, 404, call[0], call[1], ""); message != "the running config has no stream_guard" {
			t.Errorf("%s %s: %q", call[0], call[1], message)
		}
	}
}

// Whatever becomes of the viewers meanwhile.
func TestLastErrorIsKeptUnderEachPolicy(t *testing.T) {
	for policy, status := range map[string]int{"local": 200, "allow": 200, "deny": 503} {
		t.Run(policy, func(t *testing.T) {
			s := serve(t, "SITE {\nstream_guard {\n"+user+"on_store_error "+policy+"\nstore redis redis://127.0.0.1:"+redistest.FreePort(t)+"\n}\nrespond ok\n}")
			s.call(status, "GET", "/v/x/1.ts", sid, `sid="a"`)
			health, _ := administer[[]operate.Health](t, 200, "GET", "/stream_guard/stores", "")
			if len(health) != 1 || health[0].LastError == nil || !strings.Contains(health[0].LastError.Error, "refused") {
				t.Errorf("health: %+v", health)
			}
		})
	}
}

func TestNothingReachesATerminalRaw(t *testing.T) {
	for s, want := range map[string]string{
		"":              "",
		"alice":         "alice",
		"Zoë 日本 a\\nb":  "Zoë 日本 a\\nb",
		"\x1b]0;x\a":    `"\x1b]0;x\a"`,
		"a\tb\nc":       `"a\tb\nc"`,
		"\u202egnp":     `"\u202egnp"`,
		"\u009b31m":     `"\u009b31m"`,
		"\xff":          `"\xff"`,
		`"quoted"`:      `"\"quoted\""`,
		"no\u00a0break": `"no\u00a0break"`,
	} {
		if got := operate.Printable(s); got != want {
			t.Errorf("operate.Printable(%q) = %s, want %s", s, got, want)
		}
	}
	for _, s := range []string{"alice", "\x1b\x7f\u009b\u202e\U000e0001 日本\n"} {
		b, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		escaped := operate.EscapeJSON(string(b))
		if strings.ContainsAny(escaped, "\x1b\x7f\u009b\u202e\U000e0001\n") {
			t.Errorf("%q is in JSON %q", s, escaped)
		}
		var back string
		if err := json.Unmarshal([]byte(escaped), &back); err != nil || back != s {
			t.Errorf("%s reads as %q, %v; want %q", escaped, back, err, s)
		}
	}
}
