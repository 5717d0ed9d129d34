package caddymodule

import (
	"fmt"
	"testing"
	"time"

	"github.com/streamguard/streamguard/operate"
)

// What the option has a start take, of a guard that is closed and one that has lapsed,
// and what their viewers are told when they come back.
func TestReclaimSaysWhoseSlotAStartTakes(t *testing.T) {
	for _, test := range []struct {
		reclaim string // the option; "" is its default
		taken   string // by starts, until one is refused
	}{
		{"", "closed"},
		{"closed", "closed"},
		{"lapsed", "closed lapsed"},
		{"off", ""},
	} {
		t.Run(test.reclaim, func(t *testing.T) {
			withGate(t, Handler{Reclaim: test.reclaim, Limits: []Limit{{Limit: "3"}}}, func(g *site) {
				t := g.t
				watch := func(want int, name string) {
					g.get(want, "/v/"+name+"/1.m4s", sid, fmt.Sprintf(`sid=%q`, name))
				}
				watch(200, "lapsed")
				time.Sleep(36 * time.Second)
				for _, pause := range []time.Duration{22 * time.Second, 5 * time.Second} { // a guard that was never refreshed cannot be closed
					watch(200, "closed")
					watch(200, "active")
					time.Sleep(pause)
				}
				if done, err := g.store.Store.CloseGuard(t.Context(), "u", g.holds(3)[1].ID); !done || err != nil {
					t.Fatal(done, err)
				}
				tops, _ := administer[[]operate.Top](t, 200, "GET", "/stream_guard/top", "")
				for _, top := range tops {
					if top.Store == g.store.Name && (top.Guards != 3 || top.Active != 1) {
						t.Errorf("top shows %d guards, %d of them active, want 3 and 1", top.Guards, top.Active)
					}
				}

				taken := ""
				for i := range 3 {
					before := g.holds(3)
					w := g.do(ask("GET", fmt.Sprintf("/v/new%d/1.m4s", i), sid, fmt.Sprintf(`sid="new%d"`, i)))
					if w.Code != 200 {
						break
					}
					for _, guard := range before {
						gone := true
						for _, is := range g.holds(3) {
							gone = gone && is.ID != guard.ID
						}
						if gone {
							taken += " " + guard.Stream[len("v/"):]
						}
					}
				}
				if want := test.taken; taken != want && taken != " "+want {
					t.Fatalf("taken were%s, want %s", taken, want)
				}
				watch(200, "active")
				if test.taken == "" {
					watch(200, "lapsed")
					watch(200, "closed")
					return
				}
				watch(429, "closed")
				if found, err := g.store.Keeper.Release(t.Context(), "u", g.holds(3)[2].ID, g.read.policy); !found || err != nil {
					t.Fatal(found, err)
				}
				watch(200, "closed") // there is room for it again
			})
		})
	}
}
