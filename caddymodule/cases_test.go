package caddymodule

import (
	"testing"
)

// Each row is a case that somebody met (issue 21): options of the gate besides
// the user, where limit 1 goes without saying, and what is right.
var cases = []struct {
	name, options string
	site          string            // directives beside the gate, or a whole Caddyfile
	origin        map[string]string // what it answers, where the harness does not make it up
	steps         string
}{
	{
		name: "one film",
		steps: `
			tv /v/x/master.m3u8 -> 200
			tv #1 -> 200
			holds 0
			tv #1 -> 200
			holds 1 v/x
			pc /v/y/m.m3u8 -> 429 REACHED_MAX_GUARDS_COUNT
			wait 91s
			pc /v/y/m.m3u8 -> 200
			pc #1 -> 200
			holds 1 v/y`,
	},
}

func TestCases(t *testing.T) {
	onBothStores(t, func(t *testing.T, in func(*testing.T, int, string, func(*world))) {
		for _, c := range cases {
			t.Run(c.name, func(t *testing.T) {
				caddyfile := c.site
				if c.options != "" || c.site == "" || c.site[0] != '{' && c.site[:4] != "http" {
					caddyfile = gateSite(c.options, c.site)
				}
				in(t, 1, caddyfile, func(w *world) {
					w.answers(c.origin)
					w.play(c.steps)
				})
			})
		}
	})
}
