package caddymodule

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/streamguard/streamguard/playback"
)

// household is an account with clients of all kinds, of which it is known who
// watches.
type household struct {
	*world
	user string
	rand *dice

	mu     sync.Mutex
	active map[int]time.Time // clients, and when they last asked
	wrong  int
	starts int
}

// dice are thrown by several at once.
type dice struct {
	mu sync.Mutex
	*rand.Rand
}

func newDice(seed uint64) *dice { return &dice{Rand: rand.New(rand.NewPCG(seed, 1))} }

func (d *dice) IntN(n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.Rand.IntN(n)
}

// kinds are how clients ask for a title: from its folder and the number of the
// start, first for the manifest and then for media.
var populations = map[string]struct {
	open  func(folder string, n int) []string // steps without who and status
	media func(folder string, n, segment int) []string
}{
	"plain": {
		func(folder string, _ int) []string { return []string{folder + "master.m3u8", "v.m3u8"} },
		func(_ string, _, segment int) []string { return []string{fmt.Sprintf("%d.ts", segment)} }},
	"CMCD": {
		func(folder string, n int) []string { return []string{fmt.Sprintf("%sm.m3u8 sid=s%d", folder, n)} },
		func(_ string, n, segment int) []string { return []string{fmt.Sprintf("%d.ts sid=s%d", segment, n)} }},
	"CMCD with a session that is kept": {
		func(folder string, _ int) []string { return []string{folder + "m.m3u8 sid=kept"} },
		func(_ string, _, segment int) []string { return []string{fmt.Sprintf("%d.ts sid=kept", segment)} }},
	"CMCD on segments only": {
		func(folder string, _ int) []string { return []string{folder + "live.m3u8"} },
		func(_ string, n, segment int) []string {
			return []string{fmt.Sprintf("%d.ts sid=s%d", segment, n), "live.m3u8"}
		}},
	"AVPlayer": {
		func(folder string, n int) []string {
			return []string{fmt.Sprintf("%sm.m3u8 X-Playback-Session-Id=p%d", folder, n)}
		},
		func(_ string, n, segment int) []string {
			return []string{fmt.Sprintf("%d.ts X-Playback-Session-Id=p%d", segment, n)}
		}},
	"GStreamer": {
		func(folder string, _ int) []string { return []string{folder + "live.m3u8"} },
		func(folder string, _, segment int) []string {
			return []string{fmt.Sprintf("%d.ts", segment), folder + "live.m3u8"}
		}},
	"FFmpeg with DASH": {
		func(folder string, _ int) []string { return []string{folder + "live.mpd"} },
		func(folder string, _, segment int) []string {
			return []string{fmt.Sprintf("%d.m4s", segment), folder + "live.mpd"}
		}},
	"segments that have lost their token": {
		func(folder string, _ int) []string { return []string{folder + "m.m3u8"} },
		func(folder string, _, segment int) []string { return []string{fmt.Sprintf("%s%d.ts", folder, segment)} }},
	"audio that has lost its token": {
		func(folder string, _ int) []string { return []string{folder + "m.m3u8"} },
		func(folder string, _, segment int) []string {
			return []string{fmt.Sprintf("%sa%d.m4a", folder, segment), fmt.Sprintf("%d.ts", segment)}
		}},
	"a master opened twice": {
		func(folder string, _ int) []string {
			return []string{folder + "master.m3u8", folder + "master.m3u8", "v.m3u8"}
		},
		func(_ string, _, segment int) []string { return []string{fmt.Sprintf("%d.ts", segment)} }},
	"progressive": {
		func(folder string, _ int) []string { return []string{folder + "film.mp4"} },
		func(folder string, _, segment int) []string {
			return []string{fmt.Sprintf("%sfilm.mp4 Range=bytes=%d-", folder, segment)}
		}},
}

// others are how many other clients watch for sure, and how many guards they have:
// where there is room, what is loaded anew counts beside what it was before.
func (h *household) others(client int) (watch, guards int) {
	p := h.player(fmt.Sprintf("%s/c%d", h.user, client))
	for _, g := range h.world.guards(h.user) {
		if g.Client != playback.ClientHint(p.address, p.agent) {
			guards++
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for other, last := range h.active {
		if other != client && time.Since(last) < 60*time.Second {
			watch++
		}
	}
	return watch, guards
}

// watches has a client start and play titles for a while, one after the other.
func (h *household) watches(client int, kind string, limit, titles int, until time.Time) {
	k := populations[kind]
	who := fmt.Sprintf("%s/c%d", h.user, client)
	ask := func(step string) bool {
		words := strings.Fields(step)
		var fields []string
		for _, word := range words[1:] {
			name, value, _ := strings.Cut(word, "=")
			switch name {
			case "sid":
				name, value = "CMCD-Session", `sid="`+who+value+`"`
			case "X-Playback-Session-Id":
				value = who + value
			}
			fields = append(fields, name+": "+value)
		}
		return h.get(context.Background(), fmt.Sprintf("%s@%d", who, h.rand.IntN(len(h.nodes))), "GET", words[0], true, fields...).Code == 200
	}
	for n := 0; time.Now().Before(until); n++ {
		title := n % titles // so that they come back to it
		if kind == "progressive" && titles > 1 {
			title = n // without a manifest nobody can tell that from stragglers
		}
		folder := fmt.Sprintf("/v/%s-c%d-t%d/", h.user, client, title)
		watch, guards := h.others(client)
		started, most := make(chan struct{}), 0 // guards of the others at once while this one starts, which may take ten seconds
		var counting sync.WaitGroup
		counting.Go(func() {
			for {
				select {
				case <-started:
					return
				case <-time.After(time.Second):
					_, now := h.others(client)
					most = max(most, now)
				}
			}
		})
		passes := true
		for _, step := range k.open(folder, n) {
			passes = passes && ask(step)
		}
		for _, step := range k.media(folder, n, 0) {
			passes = passes && ask(step)
		}
		close(started)
		counting.Wait()
		watchStill, guardsStill := h.others(client)
		h.mu.Lock()
		h.starts++
		if passes && min(watch, watchStill) >= limit || !passes && max(guards, guardsStill, most) < limit {
			h.wrong++
			h.t.Errorf("%s of %s starts %s as its %d.: %v, beside %d others, who have %d guards", kind, who, folder, n+1, passes, watch, guards)
		}
		if passes {
			h.active[client] = time.Now()
		}
		h.mu.Unlock()
		segments := h.rand.IntN(20)
		for segment := 1; passes && segment < segments; segment++ {
			time.Sleep(4 * time.Second)
			for _, step := range k.media(folder, n, segment) {
				if !ask(step) {
					h.t.Errorf("%s of %s is refused in the middle of its %d. title", kind, who, n+1)
					passes = false
				}
			}
			h.mu.Lock()
			h.active[client] = time.Now()
			h.mu.Unlock()
		}
		if h.rand.IntN(3) == 0 {
			time.Sleep(time.Duration(h.rand.IntN(200)) * time.Second)
		}
		time.Sleep(time.Duration(1+h.rand.IntN(3000)) * time.Millisecond)
	}
}

// Four clients to an account, two of which may watch, of all kinds: no start is
// refused by mistake, and none passes. Each request goes to
// any of the nodes.
func TestAPopulation(t *testing.T) {
	kinds := slices.Sorted(maps.Keys(populations))
	const limit = 2
	for name, c := range map[string]struct {
		options string
		titles  int
	}{
		"who zap":                  {"limit 2\nlimit 1 per client replace", 3},
		"who load a title anew":    {"limit 2", 1},
		"who have rules of theirs": {"limit 2\nlimit 2 per class\nlimit 1 per client replace\nlabel class {header.X-User-Id}", 2},
	} {
		t.Run(name, func(t *testing.T) {
			test := func(w *world) {
				var all []*household
				var households sync.WaitGroup
				for n := range 5 {
					h := &household{world: w, user: fmt.Sprintf("h%d", n), rand: newDice(uint64(n)), active: make(map[int]time.Time)}
					all = append(all, h)
					for client := range 4 {
						kind := kinds[h.rand.IntN(len(kinds))]
						households.Go(func() {
							time.Sleep(time.Duration(h.rand.IntN(60_000)) * time.Millisecond)
							h.watches(client, kind, limit, c.titles, time.Now().Add(5*time.Minute))
						})
					}
				}
				households.Wait()
				starts := 0
				for _, h := range all {
					starts += h.starts
				}
				w.t.Logf("%d starts", starts)
			}
			onBothStores(t, func(t *testing.T, in func(*testing.T, int, string, func(*world))) {
				t.Run("a node", func(t *testing.T) { in(t, 1, gateSite(c.options, ""), test) })
				t.Run("two nodes", func(t *testing.T) { in(t, 2, gateSite(c.options, ""), test) })
			})
		})
	}
}
