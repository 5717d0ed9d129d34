package caddymodule

import (
	"context"
	"fmt"
	"io"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/playback"
	"github.com/streamguard/streamguard/problem"
)

// tell reports events to a URL and expects an answer.
func (g *site) tell(want int, url, body string, fields ...string) *httptest.ResponseRecorder {
	g.t.Helper()
	r := ask("POST", url, append([]string{"Content-Type", "application/cmcd"}, fields...)...)
	r.Body = io.NopCloser(strings.NewReader(body))
	w := g.do(r)
	if w.Code != want {
		g.t.Fatalf("POST %s %q: %d, want %d\n%s", url, body, w.Code, want, w.Body)
	}
	return w
}

func TestEventsKeepAPausedPlaybackPastItsTTL(t *testing.T) {
	withGate(t, Handler{Limits: []Limit{{Limit: "1"}}}, func(g *site) {
		g.get(200, "/v/x/1.m4s", sid, `cid="movie",sid="a"`)
		want := g.holds(1)[0]
		for i := range 20 {
			time.Sleep(30 * time.Second)
			g.tell(204, "/guards/cmcd", fmt.Sprintf(`cid="movie",e=t,sid="a",sta=a,ts=%d,v=2`, time.Now().UnixMilli()))
			g.get(429, "/v/y/master.m3u8", sid, fmt.Sprintf(`sid="%d"`, i))
		}
		if got := g.holds(1)[0]; got.ID != want.ID || got.Stream != "v/x" || got.CreatedAt != want.CreatedAt {
			t.Errorf("held: %+v, want %+v", got, want)
		}
		g.get(200, "/v/x/7.m4s", sid, `sid="a"`)
		time.Sleep(91 * time.Second) // and without events it is over
		g.holds(0)
	})
}

func TestEventsFreeTheSlotForAnother(t *testing.T) {
	for _, state := range []string{"e", "f", "q"} {
		withGate(t, Handler{Limits: []Limit{{Limit: "1"}}}, func(g *site) {
			g.get(200, "/v/x/1.m4s", sid, `sid="a"`)
			g.get(429, "/v/y/master.m3u8", sid, `sid="b"`)
			g.tell(204, "/guards/cmcd", "e=ps,sid=\"a\",sta=p,ts=1\ne=ps,sid=\"a\",sta="+state+",ts=2\n")
			time.Sleep(2 * time.Second) // the refusal is remembered that long
			g.get(200, "/v/y/1.m4s", sid, `sid="b"`)
			g.tell(204, "/guards/cmcd", `e=t,sid="c",sta=p`) // takes no slot
			g.holds(1)
		})
	}
}

func TestEventsOfARevokedPlaybackAreGone(t *testing.T) {
	withGate(t, Handler{}, func(g *site) {
		g.get(200, "/v/x/1.ts", sid, `sid="a"`)
		g.tell(204, "/guards/cmcd", `sid="a",sta=p`)
		if found, err := g.store.Keeper.Revoke(context.Background(), "u", g.holds(1)[0].ID, g.read.policy); !found || err != nil {
			t.Fatal(found, err)
		}
		for range 3 {
			if w := g.tell(410, "/guards/cmcd", `e=t,sid="a",sta=a`); !strings.Contains(w.Body.String(), string(problem.GuardRevoked)) {
				t.Errorf("%s", w.Body)
			}
		}
		g.holds(0)
		g.tell(204, "/guards/cmcd", `e=t,sid="b",sta=p`)
	})
}

func TestEventsOfWhatHasNotBegunClaimNothing(t *testing.T) {
	withGate(t, Handler{}, func(g *site) {
		g.tell(204, "/guards/cmcd", "e=ps,sid=\"a\",sta=d\ne=ps,sid=\"b\",sta=s")
		g.holds(0)
		g.get(200, "/v/x/1.ts", sid, `sid="a"`)
		for range 3 {
			time.Sleep(30 * time.Second)
			g.tell(204, "/guards/cmcd", `e=t,sid="a",sta=d`)
		}
		g.holds(0)
	})
}

// Media and events of one player arrive at one guard, whatever names it.
func TestEventsFindTheGuardOfTheMedia(t *testing.T) {
	token := guard.NewID("u", "tv").String()
	foreign := guard.NewID("someone", "").String()
	for _, c := range []struct {
		name, media, events string
		fields              []string
	}{
		{"session", "/v/x/1.ts?CMCD=" + url.QueryEscape(`sid="a b"`), "/guards/cmcd", nil},
		{"token", "/v/x/~" + token + "/1.ts", "/~" + token + "/guards/cmcd", nil},
		{"query", "/v/x/1.ts?guard=" + token, "/guards/cmcd?guard=" + token, nil},
		{"header", "/v/x/1.ts", "/guards/cmcd", []string{"Stream-Guard-Id", token}},
		{"id of another user", "/v/x/1.ts?guard=" + foreign, "/guards/cmcd?guard=" + foreign, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			withGate(t, Handler{Device: "{http.request.header.Device}", Playback: "{http.request.header.Session}"}, func(g *site) {
				fields := append([]string{"Device", "tv", "Session", "all the user's"}, c.fields...)
				g.get(200, c.media, fields...)
				want := g.holds(1)[0].ID
				g.tell(204, c.events, `e=t,sid="a b",sta=p`, fields...)
				if got := g.holds(1)[0]; got.ID != want || got.Stream != "v/x" || got.Device != "tv" {
					t.Errorf("guard %+v, the media's is %v", got, want)
				}
				g.tell(204, c.events, `e=ps,sid="a b",sta=q`, fields...)
				g.holds(0)
			})
		})
	}
}

// Nobody ends or keeps what another user or device plays: the same words of
// theirs are about a playback of their own.
func TestEventsReachNobodyElse(t *testing.T) {
	withGate(t, Handler{Device: "{http.request.header.Device}"}, func(g *site) {
		g.get(200, "/v/x/1.ts", "Device", "tv", sid, `sid="a"`)
		id := g.holds(1)[0].ID.String()
		for _, fields := range [][]string{{"X-User-Id", "v", "Device", "tv"}, {"Device", "phone"}} {
			for _, path := range []string{"/guards/cmcd", "/guards/cmcd?guard=" + id} {
				g.tell(204, path, `e=ps,sid="a",sta=q`, fields...)
				g.tell(204, path, `e=ps,sid="a",sta=p`, fields...)
				g.tell(204, path, `e=ps,sid="a",sta=q`, fields...)
			}
		}
		if got := g.holds(1)[0].ID.String(); got != id {
			t.Errorf("guard %s, want %s", got, id)
		}
		time.Sleep(90 * time.Second)
		g.tell(204, "/guards/cmcd", `e=t,sid="a",sta=p`, "X-User-Id", "v", "Device", "tv")
		g.holds(0)
		g.tell(401, "/guards/cmcd", `e=t,sid="a",sta=p`, "X-User-Id", "")
	})
}

// A report may come late: from before the player went on to another stream.
func TestEventsMoveNothing(t *testing.T) {
	withGate(t, Handler{Stream: "cmcd"}, func(g *site) {
		g.get(200, "/v/x/1.ts", sid, `cid="next",sid="a"`)
		for range 5 {
			time.Sleep(30 * time.Second)
			g.tell(204, "/guards/cmcd", `cid="movie",e=t,sid="a",sta=p`)
		}
		if got := g.holds(1)[0].Stream; got != "next" {
			t.Errorf("a report moved the guard to %q", got)
		}
	})
}

func TestEventsWhileTheStoreIsAway(t *testing.T) {
	for _, mode := range []string{"local", "allow", "deny"} {
		withGate(t, Handler{OnStoreError: mode}, func(g *site) {
			g.storeAway()
			g.tell(503, "/guards/cmcd", `e=t,sid="a",sta=p`)
			g.tell(503, "/guards/cmcd", `e=ps,sid="a",sta=q`)
		})
	}
}

func TestBrokenAndHugeEventsDoLittle(t *testing.T) {
	withGate(t, Handler{Limits: []Limit{{Limit: "1000"}}}, func(g *site) {
		for body, want := range map[string]int{
			"":                          400,
			`sid="a`:                    400,
			`sid="",sta=p`:              400,
			"\xff\xfe":                  400,
			`{"sid":"a"}`:               400,
			strings.Repeat("x", 1<<20):  413,
			"sid=\"\nsid=\"a\",sta=d\n": 204,
		} {
			g.tell(want, "/guards/cmcd", body)
		}
		reports := func(n int) string {
			var body strings.Builder
			for i := range n {
				fmt.Fprintf(&body, "sid=\"%d\",sta=p\n", i)
			}
			return body.String()
		}
		over := strings.NewReplacer("sta=p", "sta=q")
		for i := range 2 * playback.MaxSessions {
			g.get(200, "/v/x/1.ts", sid, fmt.Sprintf(`sid="%d"`, i))
		}
		g.tell(413, "/guards/cmcd", over.Replace(reports(10_000)))
		g.tell(415, "/guards/cmcd", `sid="1",sta=q`, "Content-Type", "text/plain")
		g.holds(2 * playback.MaxSessions)
		g.tell(204, "/guards/cmcd", over.Replace(reports(3_000)))
		g.holds(playback.MaxSessions)
	})
}

// A viewer is not to blame for what a player makes of CMCD.
func TestBrokenCMCDIsAsIfAbsent(t *testing.T) {
	withGate(t, Handler{Limits: []Limit{{Limit: "1"}}, Stream: "cmcd"}, func(g *site) {
		g.get(200, "/v/x/1.ts")
		want := g.holds(1)[0]
		for _, data := range []string{
			`sid="a`, `sid=""`, `sid="a",sid=1`, `sid=`, `"`, `sid="` + strings.Repeat("x", 65) + `"`, "sid=\"\xff\"", "sid=\"a\",cid=\"\xff\"", `sid="é"`,
			`sid="` + strings.Repeat("x", 16<<10) + `"`, `sid="a",nor="` + strings.Repeat("x", 16<<10) + `"`, strings.Repeat(`sid="a",`, 2<<10),
		} {
			g.get(200, "/v/x/1.ts", sid, data)
			g.get(200, "/v/x/1.ts?CMCD="+url.QueryEscape(data))
		}
		g.get(200, "/v/x/1.ts?CMCD=%zz")
		g.get(200, "/v/x/1.ts?CMCD=sid%3D%22a%2")
		if got := g.holds(1)[0]; got.ID != want.ID || got.Stream != want.Stream {
			t.Errorf("held: %+v, want %+v", got, want)
		}
	})
}
