package command

import (
	"bufio"
	"cmp"
	"context"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	"github.com/streamguard/streamguard/audience"
	"github.com/streamguard/streamguard/caddymodule"
	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/replay"
)

var viewers = flag.Int("viewers", 300, "users of whom a day is written as a log and replayed, for each kind of player")

// watched is a playback as it was.
type watched struct {
	user   int
	title  int
	client int
	id     guard.ID
	looks  int64   // when it asks for its manifest, in milliseconds
	asks   []int64 // and for media
}

func (w *watched) ends() int64 { return w.asks[len(w.asks)-1] }

// day is what users watch in a day. Nobody begins at a moment at which it is a matter
// of milliseconds whether another slot is free: that hangs on when a guard was
// refreshed last.
func day(rng *rand.Rand, users int) (all []watched) {
	for user := range users {
		at := rng.Int64N(20 * 3600_000)
		for range 1 + rng.IntN(2) {
			var latest, next int64
			play := func(from, lasts int64) watched {
				w := watched{user: user, title: rng.IntN(500), client: len(all), looks: from - 200, id: guard.NewID(fmt.Sprint("user", user), "")}
				for t := from; t <= from+lasts; t += 4000 + rng.Int64N(6000) {
					w.asks = append(w.asks, t)
				}
				latest = max(latest, w.ends())
				all = append(all, w)
				return w
			}
			n := 1
			for n < 12 && rng.IntN(5) > 1 {
				n++
			}
			for i := range n {
				w := play(at+int64(i)*2000+rng.Int64N(1000), 60_000+rng.Int64N(240_000))
				if i == 0 && rng.IntN(3) == 0 {
					next = w.ends() + 1000 + rng.Int64N(20_000)
				}
			}
			// Another title, a moment after the first was over.
			if own := all[len(all)-n:]; next > 0 && !slices.ContainsFunc(own, func(w watched) bool { return w.ends() > next-95_000 && w.ends() < next-65_000 }) {
				play(next, 60_000)
			}
			at = latest + 200_000 + rng.Int64N(3600_000)
		}
	}
	return all
}

// truth is what a report is to say of a day.
func truth(all []watched) audience.Report {
	var r audience.Report
	byUser := make(map[int][]*watched)
	titles := make(map[int]bool)
	for i := range all {
		byUser[all[i].user] = append(byUser[all[i].user], &all[i])
		titles[all[i].title] = true
	}
	r.Users, r.Streams, r.Playbacks = int64(len(byUser)), int64(len(titles)), int64(len(all))
	for n := 1; n <= audience.MaxLimit; n++ {
		limit := audience.LimitReport{Limit: n}
		for _, own := range byUser {
			slices.SortFunc(own, func(a, b *watched) int { return cmp.Compare(a.asks[0], b.asks[0]) })
			hit := int64(0)
			var in []*watched
			for _, w := range own {
				in = slices.DeleteFunc(in, func(o *watched) bool { return o.ends()+80_000 < w.asks[0] })
				if len(in) < n {
					in = append(in, w)
				} else {
					hit = 1
					limit.Playbacks++
				}
			}
			limit.Users += hit
		}
		limit.Share = float64(limit.Playbacks) / float64(r.Playbacks)
		r.Limits = append(r.Limits, limit)
	}
	for _, own := range byUser {
		var edges [][2]int64
		for _, w := range own {
			edges = append(edges, [2]int64{w.asks[0], -1}, [2]int64{w.ends(), 1})
		}
		slices.SortFunc(edges, func(a, b [2]int64) int { return cmp.Or(cmp.Compare(a[0], b[0]), cmp.Compare(a[1], b[1])) })
		now, most := 0, 0
		for i, e := range edges {
			if now > 0 {
				r.AtOnce[now-1].Seconds += float64(e[0]-edges[i-1][0]) / 1000
			}
			now -= int(e[1])
			most = max(most, now)
			for len(r.AtOnce) < most {
				r.AtOnce = append(r.AtOnce, audience.AtOnce{Playbacks: len(r.AtOnce) + 1})
			}
		}
		for n := range most {
			r.AtOnce[n].Users++
		}
		r.AtOnce[most-1].Most++
	}
	return r
}

// ways are those in which a log shows which playback a request is part of.
var ways = []struct {
	name  string
	exact bool
	line  func(w *watched, i int) (uri, header string, status int)
}{
	{"token", true, func(w *watched, i int) (string, string, int) {
		return fmt.Sprintf("/~%v/vod/%d/%s", w.id, w.title, file(i)), "", 200
	}},
	{"CMCD session id", true, func(w *watched, i int) (string, string, int) {
		return fmt.Sprintf("/vod/%d/%s?CMCD=sid%%3D%%22%v%%22", w.title, file(i), w.id), "", 200
	}},
	{"guard parameter", true, func(w *watched, i int) (string, string, int) {
		return fmt.Sprintf("/vod/%d/%s?guard=%v", w.title, file(i), w.id), "", 200
	}},
	{"X-Playback-Session-Id", true, func(w *watched, i int) (string, string, int) {
		return fmt.Sprintf("/vod/%d/%s", w.title, file(i)), fmt.Sprintf(`,"X-Playback-Session-Id":["%v"]`, w.id), 200
	}},
	{"nothing, on a client of its own", true, func(w *watched, i int) (string, string, int) {
		return fmt.Sprintf("/vod/%d/%s", w.title, file(i)), "", 200
	}},
	{"nothing, on the user's only client", false, func(w *watched, i int) (string, string, int) {
		return fmt.Sprintf("/vod/%d/%s", w.title, file(i)), "", 200
	}},
	{"nothing, no manifest, on the user's only client", false, func(w *watched, i int) (string, string, int) {
		return fmt.Sprintf("/vod/%d/%d.ts", w.title, i), "", 200
	}},
}

func file(i int) string {
	if i == 0 {
		return "master.m3u8"
	}
	return fmt.Sprintf("%d.m4s", i)
}

// A log of which it is known what was watched is replayed.
func TestReplayEqualsTheTruth(t *testing.T) {
	for _, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(1, 1))
			all := day(rng, *viewers)
			want := truth(all)
			log := filepath.Join(t.TempDir(), "access.log")
			writeDay(t, log, all, way.line, way.exact)
			got := replayLog(t, replayConfig, log)
			if !way.exact {
				t.Logf("playbacks %d, in truth %d; with limit 3 %d would be refused, in truth %d", got.Playbacks, want.Playbacks, got.Limits[2].Outcome.Playbacks, want.Limits[2].Outcome.Playbacks)
				if got.Users != want.Users || got.Streams != want.Streams || got.Playbacks > want.Playbacks {
					t.Errorf("%d users, %d streams, %d playbacks; in truth %d, %d, %d", got.Users, got.Streams, got.Playbacks, want.Users, want.Streams, want.Playbacks)
				}
				return
			}
			for i := range min(len(got.AtOnce), len(want.AtOnce)) {
				if is, was := &got.AtOnce[i].Seconds, want.AtOnce[i].Seconds; math.Abs(*is-was) < 0.1 {
					*is = was
				}
			}
			if got.Users != want.Users || got.Streams != want.Streams || got.Playbacks != want.Playbacks {
				t.Errorf("%d users, %d streams, %d playbacks; in truth %d, %d, %d", got.Users, got.Streams, got.Playbacks, want.Users, want.Streams, want.Playbacks)
			}
			if !reflect.DeepEqual(got.AtOnce, want.AtOnce) {
				t.Errorf("at once:\n%v, in truth\n%v", got.AtOnce, want.AtOnce)
			}
			if !reflect.DeepEqual(got.Limits, want.Limits) {
				t.Errorf("limits:\n%v, in truth\n%v", got.Limits, want.Limits)
			}
			if got.Configured != want.Limits[2].Outcome {
				t.Errorf("limit 3 as configured: %v, in truth %v", got.Configured, want.Limits[2].Outcome)
			}
			if want.Limits[2].Outcome.Playbacks == 0 || want.Limits[6].Outcome.Playbacks == 0 {
				t.Error("nobody is beyond a limit: the test says nothing")
			}
		})
	}
}

const replayConfig = `{"apps":{"http":{"servers":{"s":{"routes":[{"handle":[{"handler":"stream_guard","user":"{http.auth.user.id}"}]}]}}}}}`

func writeDay(t *testing.T, log string, all []watched, line func(*watched, int) (string, string, int), own bool) {
	type event struct {
		at int64
		w  *watched
		i  int
	}
	var events []event
	for i := range all {
		events = append(events, event{all[i].looks, &all[i], 0})
		for n, at := range all[i].asks {
			events = append(events, event{at, &all[i], n + 1})
		}
	}
	slices.SortStableFunc(events, func(a, b event) int { return cmp.Compare(a.at, b.at) })
	f, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	out := bufio.NewWriterSize(f, 1<<20)
	for _, e := range events {
		uri, header, status := line(e.w, e.i)
		client := e.w.client
		if !own {
			client = e.w.user
		}
		fmt.Fprintf(out, `{"ts":%d.%03d,"msg":"handled request","request":{"client_ip":"10.%d.%d.%d","method":"GET","host":"a.example","uri":"%s","headers":{"User-Agent":["box"]%s}},"user_id":"user%d","duration":0.25,"status":%d}`+"\n",
			1_764_201_600+(e.at+250)/1000, (e.at+250)%1000, client>>16, client>>8&255, client&255, uri, header, e.w.user, status)
	}
	if err := out.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// replayLog has a log go through a config, of JSON or as a Caddyfile.
func replayLog(t *testing.T, config string, logs ...string) *audience.Report {
	t.Helper()
	return replayWith(t, config, "", replay.Options{}, logs...)
}

func replayWith(t *testing.T, config, site string, o replay.Options, logs ...string) *audience.Report {
	t.Helper()
	if config[0] != '{' || config[1] != '"' {
		adapted, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(config), nil)
		if err != nil {
			t.Fatal(err)
		}
		config = string(adapted)
	}
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	defer cancel()
	sites, err := caddymodule.NewReplay(ctx, []byte(config), site, o)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	r, _, err := sites.Run(t.Context(), logs)
	if r == nil {
		t.Fatal(err)
	}
	lines := r.Lines
	t.Logf("%d lines in %v", lines.Read, time.Since(began))
	if l := r.Load; l.StartsPerMinute > float64(l.MostPerMinute) || l.CallsPerMinute > float64(l.MostCalls) {
		t.Errorf("on average there is more than in the busiest minute: %+v", l)
	}
	if all := lines.Judged + lines.Other + lines.Elsewhere + lines.Outside + lines.Broken; all != lines.Read {
		t.Errorf("%d of %d lines are accounted for: %+v", all, lines.Read, lines)
	}
	return r
}
