package truth

import (
	"math"
	"math/rand/v2"
	"reflect"
	"testing"
)

// watched is a playback that was admitted at once and watched to its end.
func watchedFor(from, over float64) *played {
	return &played{kind: &kinds[0], asked: from, answered: from, admitted: true, over: over, spells: []spell{{from, over}}}
}

func refusedAt(from, to float64) *played {
	return &played{kind: &kinds[0], asked: from, answered: to, code: "429", over: to}
}

func (p *played) but(change func(*played)) *played {
	change(p)
	return p
}

func TestJudge(t *testing.T) {
	goodbye := func(p *played) { p.goodbye = true }
	for name, c := range map[string]struct {
		account account
		want    row
	}{
		"room, and admitted": {
			account{playbacks: []*played{watchedFor(0, 50), watchedFor(10, 50)}},
			row{Starts: 2, Room: 2, Admitted: 2, Played: 2, Watched: 90},
		},
		"no room": {
			account{playbacks: []*played{watchedFor(0, 50), watchedFor(0, 50), refusedAt(10, 10)}},
			row{Starts: 3, Room: 2, Admitted: 2, Played: 2, Refused: 1, Watched: 100},
		},
		"refused because of what is over": {
			account{playbacks: []*played{watchedFor(0, 50), watchedFor(0, 20), refusedAt(30, 40)}},
			row{Starts: 3, Room: 3, Admitted: 2, Played: 2, Refused: 1, Watched: 70},
		},
		"refused because of what is over just now": {
			account{playbacks: []*played{watchedFor(0, 50), watchedFor(0, 20), refusedAt(25, 25)}},
			row{Starts: 3, Room: 3, Admitted: 2, Played: 2, Refused: 1, Fresh: 1, Watched: 70},
		},
		"refused by mistake, ttl later": {
			account{playbacks: []*played{watchedFor(0, 150), watchedFor(0, 20), refusedAt(112, 112)}},
			row{Starts: 3, Room: 3, Admitted: 2, Played: 2, Refused: 1, Within: 1, Watched: 170},
		},
		"refused by mistake, after a goodbye": {
			account{playbacks: []*played{watchedFor(0, 150), watchedFor(0, 20).but(goodbye), refusedAt(22, 22)}},
			row{Starts: 3, Room: 3, Admitted: 2, Played: 2, Refused: 1, Within: 1, Fresh: 1, Watched: 170},
		},
		"another started while this one waited": {
			account{playbacks: []*played{watchedFor(0, 50), watchedFor(35, 50), refusedAt(30, 40)}},
			row{Starts: 3, Room: 2, Admitted: 2, Played: 2, Refused: 1, Watched: 65},
		},
		"beyond": {
			account{playbacks: []*played{watchedFor(0, 50), watchedFor(10, 50), watchedFor(20, 30), watchedFor(25, 30)}},
			row{Starts: 4, Room: 2, Admitted: 2, Played: 4, Beyond: 15, Watched: 105},
		},
		"a pause is nobody's watching": {
			account{playbacks: []*played{watchedFor(0, 50), watchedFor(0, 50), watchedFor(0, 50).but(func(p *played) {
				p.spells = []spell{{0, 10}, {40, 50}}
				p.pauses = []pause{{30, false, ""}}
			})}},
			row{Starts: 3, Played: 3, Beyond: 20, Watched: 120, Kept: 1},
		},
		"back to a slot that was taken": {
			account{playbacks: []*played{watchedFor(0, 50).but(func(p *played) {
				p.pauses = []pause{{30, true, ""}, {30, true, "429"}, {30, false, "429"}, {100, true, "429"}}
			})}},
			row{Starts: 1, Room: 1, Admitted: 1, Played: 1, Watched: 50, Closed: 2, ClosedTaken: 1, Kept: 1, KeptTaken: 1, Long: 1, LongTaken: 1},
		},
		"interrupted": {
			account{playbacks: []*played{
				watchedFor(0, 50).but(func(p *played) { p.interrupted = "429" }),
				watchedFor(0, 50).but(func(p *played) { p.interrupted, p.kind = "429", &kind{conns: idles, segment: 10} }),
			}},
			row{Starts: 2, Room: 2, Admitted: 2, Played: 2, Watched: 100, Interrupted: 2, Steady: 1},
		},
		"samples": {
			account{
				playbacks: []*played{watchedFor(0, 50), watchedFor(10, 30)},
				samples:   []sample{{20, 20, 2, 2}, {20, 20, 1, 1}, {20, 20, 1, 2}, {29, 31, 1, 1}, {29, 31, 2, 2}, {40, 40, 2, 2}, {40, 40, 1, 2}, {60, 60, 1, 1}},
			},
			row{Starts: 2, Room: 2, Admitted: 2, Played: 2, Watched: 70, Samples: 8, Under: 1, Above: 2},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := c.account.judge()
			if got.Notes = nil; !reflect.DeepEqual(got, c.want) {
				t.Errorf("%+v\nwant %+v", got, c.want)
			}
		})
	}
}

// A seed says who does what when, and every session is in its time.
func TestPlan(t *testing.T) {
	for i := range kinds {
		k := &kinds[i]
		plan := func() []session { return k.plan(rand.New(rand.NewPCG(7, 7)), 1500) }
		all := plan()
		if len(all) == 0 || !reflect.DeepEqual(all, plan()) {
			t.Errorf("%s: %d sessions, or others the second time", k.name, len(all))
		}
		last := math.Inf(-1)
		for _, s := range all {
			if s.at < last || s.until < s.at || s.until > 1500 {
				t.Errorf("%s: from %v to %v, after %v", k.name, s.at, s.until, last)
			}
			last = s.until
		}
	}
}
