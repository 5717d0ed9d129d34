package caddymodule

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/streamguard/streamguard/audience"
	"github.com/streamguard/streamguard/guard"
)

// verdict is what the placeholders say of the last request that reached the
// origin: verdict, held and limit.
func (g *site) verdict() string {
	repl := g.last.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	return repl.ReplaceAll("{http.stream_guard.verdict} {http.stream_guard.held}/{http.stream_guard.limit}", "")
}

func (g *site) passes(verdict, url string, fields ...string) {
	g.t.Helper()
	g.get(200, url, fields...)
	if got := g.verdict(); got != verdict {
		g.t.Errorf("GET %s %q: %s, want %s", url, fields, got, verdict)
	}
}

func TestObservingRefusesNobodyAndSaysWhomItWould(t *testing.T) {
	withGate(t, Handler{Mode: "observe", Limits: []Limit{{Limit: "2"}}, Labels: map[string]string{"plan": "{http.request.header.Plan}"}}, func(g *site) {
		g.passes("admitted 1/2", "/v/x/1.ts", sid, `sid="a"`)
		g.passes("admitted 2/2", "/v/x/1.ts", sid, `sid="b"`)
		g.passes("would_reject 3/2", "/v/x/1.ts", sid, `sid="c"`)
		problem := g.last.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer).ReplaceAll("{http.stream_guard.retry_after} {http.stream_guard.problem}", "")
		if !strings.HasPrefix(problem, "90 ") || !strings.Contains(problem, "2 of 2 guards held") {
			t.Errorf("the problem it would have been: %s", problem)
		}
		g.passes("known 3/2", "/v/x/2.ts", sid, `sid="c"`)
		if n := g.logs.FilterMessage("would have been refused").Len(); n != 1 || g.logs.FilterMessage("refused").Len() != 0 {
			t.Errorf("%d lines in the log, want 1: %v", n, g.logs.All())
		}
		// Carrying on needs more than the limit allows, for as long as it plays.
		for n := range 30 {
			time.Sleep(10 * time.Second)
			for _, s := range []string{"a", "b", "c"} {
				g.get(200, fmt.Sprintf("/v/x/%d.ts", n), sid, `sid="`+s+`"`)
				if got := g.verdict(); !strings.HasPrefix(got, "known ") {
					t.Errorf("after %d s: %s", 10*n+10, got)
				}
			}
		}
		g.holds(3)
	})
}

func TestObservingPassesWhatWasRevoked(t *testing.T) {
	withGate(t, Handler{Mode: "observe"}, func(g *site) {
		g.get(200, "/v/x/1.ts", sid, `sid="a"`)
		id := g.holds(1)[0].ID
		if found, err := g.store.Keeper.Revoke(context.Background(), "u", id, g.read.policy); !found || err != nil {
			t.Fatal(found, err)
		}
		start := time.Now()
		for range 3 {
			g.passes("would_reject 0/3", "/v/x/2.ts", sid, `sid="a"`)
			g.tell(204, "/guards/cmcd", `e=t,sid="a",sta=p`)
		}
		if d := time.Since(start); d != 0 {
			t.Errorf("held back for %v", d)
		}
		g.holds(0)
		if w := g.do(ask("PATCH", "/guards/"+id.String())); w.Code != 404 {
			t.Errorf("PATCH: %d %s", w.Code, w.Body)
		}
	})
}

func TestObservingPassesWhateverElseIsRefused(t *testing.T) {
	withGate(t, Handler{Mode: "observe", OnStoreError: "deny"}, func(g *site) {
		g.passes("would_reject /", "/v/x/1.ts", "X-User-Id", strings.Repeat("u", 300))
		g.get(401, "/v/x/1.ts", "X-User-Id", "")
		g.storeAway()
		g.passes("would_reject /3", "/v/x/1.ts")
	})
	withGate(t, Handler{Mode: "observe", Anonymous: "allow"}, func(g *site) {
		g.get(200, "/v/x/1.ts", "X-User-Id", "")
	})
}

func TestObservingCountsHereWhileTheStoreIsAway(t *testing.T) {
	withGate(t, Handler{Mode: "observe", Limits: []Limit{{Limit: "1"}}}, func(g *site) {
		g.storeAway()
		g.passes("admitted 1/1", "/v/x/1.ts", sid, `sid="a"`)
		g.passes("would_reject 2/1", "/v/x/1.ts", sid, `sid="b"`)
	})
}

func TestObservingFollowsRulesAndReplacements(t *testing.T) {
	rule := Handler{Mode: "observe", Limits: []Limit{{Per: "stream", Limit: "1"}}}
	withGate(t, rule, func(g *site) {
		g.passes("admitted 1/3", "/v/x/1.ts", sid, `sid="a"`)
		g.passes("admitted 2/3", "/v/y/1.ts", sid, `sid="b"`)
		g.passes("would_reject 3/3", "/v/x/1.ts", sid, `sid="c"`)
	})
	withGate(t, Handler{Mode: "observe", Limits: []Limit{{Limit: "1", Replace: "oldest"}}}, func(g *site) {
		g.passes("vacant 0/1", "/v/x/master.m3u8", sid, `sid="a"`)
		g.passes("admitted 1/1", "/v/x/1.ts", sid, `sid="a"`)
		g.passes("would_replace 2/1", "/v/x/1.ts", sid, `sid="b"`)
		g.passes("known 1/1", "/v/x/2.ts", sid, `sid="a"`)
		g.holds(2)
	})
	withGate(t, Handler{Mode: "observe", Limits: []Limit{{Limit: "1"}}, Reclaim: "lapsed"}, func(g *site) {
		g.passes("admitted 1/1", "/v/x/1.ts", sid, `sid="a"`)
		time.Sleep(70 * time.Second)
		g.passes("admitted 2/1", "/v/x/1.ts", sid, `sid="b"`) // the first has lapsed
		g.passes("would_reject 3/1", "/v/x/1.ts", sid, `sid="c"`)
	})
}

// Under a token the manifest only looks; the first segment starts, as it would
// if the manifest had made room.
func TestObservingFollowsReplacementsUnderTokens(t *testing.T) {
	withGate(t, Handler{Playback: "auto", Mode: "observe", Limits: []Limit{{Limit: "1", Replace: "oldest"}}}, func(g *site) {
		for held, want := range []string{"admitted 1/1", "would_replace 2/1"} {
			token := "/v/x/~" + guard.NewID("u", "").String()
			g.passes(fmt.Sprintf("vacant %d/1", held), token+"/master.m3u8")
			g.passes(want, token+"/1.ts")
		}
	})
}

func TestObservingAPIRefusesNobody(t *testing.T) {
	withGate(t, Handler{Mode: "observe", Limits: []Limit{{Limit: "1", Replace: "oldest"}}}, func(g *site) {
		for range 4 {
			if w := g.do(ask("POST", "/guards")); w.Code != 201 {
				t.Fatalf("%d %s", w.Code, w.Body)
			}
		}
		g.holds(4)
		if w := g.do(ask("GET", "/guards")); !strings.Contains(w.Body.String(), `"limit":1,"remaining":0`) {
			t.Errorf("%s", w.Body)
		}
		// A playback that was revoked has a guard again, the same each time.
		post := func() (int, http.Header) {
			w := g.do(ask("POST", "/guards", sid, `sid="a"`))
			return w.Code, w.Header()
		}
		code, h := post()
		first, err := guard.ParseID(strings.TrimPrefix(h.Get("Location"), "/guards/"))
		if code != 201 || err != nil {
			t.Fatal(code, h)
		}
		if found, err := g.store.Keeper.Revoke(context.Background(), "u", first, g.read.policy); !found || err != nil {
			t.Fatal(found, err)
		}
		code, h = post()
		again := h.Get("Location")
		if code != 201 || strings.HasSuffix(again, first.String()) {
			t.Errorf("after its revocation: %d %v", code, h)
		}
		if code, _ = post(); code != 200 {
			t.Errorf("repeated: %d, want 200", code)
		}
		if w := g.do(ask("PATCH", again)); w.Code != 200 {
			t.Errorf("PATCH: %d %s", w.Code, w.Body)
		}
		if r := report(t, g); r.Playbacks != 6 {
			t.Errorf("%d playbacks counted, want 6", r.Playbacks)
		}
	})
}

func TestReportSaysWhomEachLimitWouldHaveRefused(t *testing.T) {
	withGate(t, Handler{Mode: "observe"}, func(g *site) {
		for user, playbacks := range map[string]int{"one": 1, "two": 2, "three": 3, "also three": 3, "twelve": 12} {
			for n := range playbacks {
				agent := "one"
				if n == 11 {
					agent = "another"
				}
				for range 2 { // only the first of a playback's requests counts
					g.get(200, "/v/x/1.ts", sid, fmt.Sprintf(`sid="%d"`, n), "X-User-Id", user, "User-Agent", agent)
				}
			}
		}
		got := report(t, g)
		var want []audience.LimitReport
		for i, refused := range [][2]int64{{4, 16}, {3, 12}, {1, 9}, {1, 8}, {1, 7}, {1, 6}, {1, 5}, {1, 4}, {1, 3}, {1, 2}} {
			want = append(want, audience.LimitReport{Limit: i + 1, Outcome: audience.Outcome{Users: refused[0], Playbacks: refused[1], Share: float64(refused[1]) / 21}})
		}
		// Of those that the limit of 3 would have refused eight came from the client of all that is in the way.
		if got.Playbacks != 21 || got.Users != 5 || got.SelfRefusals != 8 || !reflect.DeepEqual(got.Limits, want) {
			t.Errorf("got\n%+v\nwant\n%+v", got, want)
		}
	})
}

// slow is a store that takes a second to answer.
type slow struct{ guard.Store }

func (s slow) Acquire(ctx context.Context, c guard.Claim, p guard.Policy) (guard.Verdict, error) {
	time.Sleep(time.Second)
	return s.Store.Acquire(ctx, c, p)
}

// Requests that a player sends at once are one start.
func TestObservingCountsAPlaybackOnce(t *testing.T) {
	withGate(t, Handler{Mode: "observe"}, func(g *site) {
		g.store.Keeper.Store = slow{g.store.Keeper.Store}
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				r := ask("GET", "/v/x/1.ts", sid, `sid="a"`)
				w := httptest.NewRecorder()
				r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, &caddyhttp.Server{})
				if err := g.ServeHTTP(w, r, caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return nil })); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if r := report(t, g); r.Playbacks != 1 {
			t.Errorf("%d playbacks counted, want 1", r.Playbacks)
		}
	})
}

func report(t *testing.T, g *site) audience.Report {
	t.Helper()
	r, ok := g.store.Audience.Report()
	if !ok {
		t.Fatal("nobody has watched")
	}
	return r
}
