package gate

import (
	"context"
	"fmt"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/streamguard/streamguard/audience"
	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/lease"
	"github.com/streamguard/streamguard/memstore"
	"github.com/streamguard/streamguard/playback"
)

// withGate runs a test of a gate over a memory store, in virtual time and
// without a server.
func withGate(t *testing.T, test func(*Gate)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s, local := memstore.New(), memstore.New()
		k := lease.New(s, local, nil)
		test(New(k, local, audience.New(), NewMemory()))
		k.Close()
		local.Close()
		s.Close()
	})
}

// ask is a request of a user for a URL, judged by a limit.
func ask(user, url string, limit int) *Request {
	r := httptest.NewRequest("GET", url, nil)
	if clean, _, found := playback.CutToken(r.URL.Path); found {
		r.URL.Path = clean
	}
	kinds, _ := playback.NewKinds(nil)
	return &Request{
		HTTP: r, Kind: kinds.Of(r.URL.Path), Movable: true,
		User: user, Stream: playback.Dir(r.URL.Path, 2),
		Policy: guard.Policy{Limit: limit, Interval: guard.DefaultInterval, TTL: guard.DefaultTTL},
	}
}

func TestBegin(t *testing.T) {
	withGate(t, func(g *Gate) {
		token := guard.NewID("u", "")
		tokened := func(url string) *Request {
			r := ask("u", url, 1)
			r.Token = &token
			return r
		}
		for _, c := range []struct {
			r    *Request
			want Word
			held int
		}{
			{ask("", "/vod/a/1.ts", 1), "missing_user", Unknown},
			{ask("u", "/vod/a/master.m3u8", 1), Redirected, Unknown},
			{tokened("/vod/a/master.m3u8"), Vacant, 0},
			{tokened("/vod/a/1.ts"), Admitted, 1},
			{tokened("/vod/a/2.ts"), Known, 1},
			{ask("u", `/vod/b/1.ts?CMCD=sid%3D%22b%22`, 1), Rejected, 1},
			{ask("u", `/vod/b/1.ts?CMCD=sid%3D%22b%22`, 2), Admitted, 2},
			{ask("u", "/vod/a/2.ts", 1), Known, 1}, // it has lost its token
			{ask("u", "/vod/c/2.ts?CMCD=sid", guard.Unlimited), Admitted, 3},
			{ask("v", "/vod/a/1.ts", 0), Rejected, 0},
		} {
			p := g.Begin(context.Background(), c.r)
			if p.Word != c.want || p.Held != c.held {
				t.Errorf("%s of %q: %s with %d held, want %s with %d", c.r.HTTP.URL, c.r.User, p.Word, p.Held, c.want, c.held)
			}
			refused := c.want == Rejected || c.want == "missing_user"
			if (p.Refusal != nil) != refused {
				t.Errorf("%s: refusal %v", c.r.HTTP.URL, p.Refusal)
			}
		}
		if p := g.Begin(context.Background(), ask("u", "/vod/c/3.ts?CMCD=sid", guard.Unlimited)); !p.BrokenCMCD {
			t.Error("CMCD that names no session is not said to be broken")
		}
	})
}

// The media of an interstitial that says its own name are part of the playback
// that its manifest says it interrupts.
func TestInterstitialUnderAnotherName(t *testing.T) {
	withGate(t, func(g *Gate) {
		g.Naming = ByStream
		for _, c := range []struct {
			url  string
			want Word
		}{
			{"/vod/film/1.ts?CMCD=sid%3D%22film%22", Admitted},
			{"/ads/1/1.ts?CMCD=sid%3D%22ad%22", Rejected},
			{"/ads/1/m.m3u8?_HLS_primary_id=film&CMCD=sid%3D%22ad%22", Known},
			{"/ads/1/1.ts?CMCD=sid%3D%22ad%22", Known},
			{"/ads/1/1.ts?CMCD=sid%3D%22another%22", Rejected},
		} {
			time.Sleep(time.Minute / 10) // a refusal is remembered
			p := g.Begin(context.Background(), ask("u", c.url, 1))
			if p.Word != c.want || p.Held != 1 {
				t.Errorf("%s: %s with %d held, want %s", c.url, p.Word, p.Held, c.want)
			}
		}
		if p := g.Begin(context.Background(), ask("v", "/ads/1/1.ts?CMCD=sid%3D%22ad%22", 0)); p.Word != Rejected {
			t.Errorf("another user's ad of that name: %s", p.Word)
		}
	})
}

// Who is only observed passes, and the decision says what it would have been.
func TestObserving(t *testing.T) {
	withGate(t, func(g *Gate) {
		for n := range guard.MaxObserved + 3 {
			r := ask("u", fmt.Sprintf("/vod/%d/1.ts?CMCD=sid%%3D%%22%d%%22", n, n), 2)
			r.Mode = Observe
			p := g.Begin(context.Background(), r)
			if would := n >= 2; p.Refusal != nil || (p.Would != nil) != would || would != (p.Word == WouldReject) {
				t.Errorf("playback %d: %s, refusal %v, would be %v", n+1, p.Word, p.Refusal, p.Would)
			}
			time.Sleep(time.Millisecond)
		}
		g.Audience.Watch(time.Now())
		r, _ := g.Audience.Report()
		if r.Playbacks != guard.MaxObserved || r.Limits[0].Playbacks != guard.MaxObserved-1 {
			t.Errorf("%+v", r)
		}
	})
}

// A player may say what it runs on in some of its requests only.
func TestADeviceThatIsNotAlwaysSaid(t *testing.T) {
	withGate(t, func(g *Gate) {
		tv, unsaid := guard.NewID("u", "tv"), guard.NewID("u", "")
		for _, token := range []guard.ID{tv, unsaid} {
			for n, device := range []string{"tv", "", "tv", ""} {
				r := ask("u", fmt.Sprintf("/vod/a/%d.ts", n), 1)
				r.Token, r.Device = &token, device
				if p := g.Begin(context.Background(), r); p.Refusal != nil || p.ID != token {
					t.Errorf("%v: request %d: %s of %v", token, n, p.Word, p.ID)
				}
			}
			g.Keeper.Release(context.Background(), "u", token, ask("u", "/", 1).Policy)
			time.Sleep(10 * time.Second)
		}
		// What is another user's, or another device's, is none of this one.
		for _, who := range [][2]string{{"v", ""}, {"u", "phone"}} {
			r := ask(who[0], "/vod/a/1.ts", 1)
			r.Token, r.Device = &tv, who[1]
			if p := g.Begin(context.Background(), r); p.ID == tv {
				t.Errorf("%q has the television's playback", who)
			}
		}
	})
}
