// Package truth plays a population whose truth is known against the built binary,
// and tells how exact the gate's count is.
package truth

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"text/tabwriter"
	"time"
)

var (
	long = flag.Bool("truth.long", false, "play all kinds of players, and everything for longer")
	seed = flag.Uint64("truth.seed", 1, "of who does what when")
)

// size is how much is played.
type size struct {
	length                   float64 // seconds of life
	textbook, closing, mixed int     // accounts
	each                     bool    // and one of each kind
}

// TestTruth plays populations in several worlds at once.
func TestTruth(t *testing.T) {
	s := size{length: 210, textbook: 3, closing: 4, mixed: 6}
	if *long {
		s = size{length: 1500, textbook: 4, closing: 6, mixed: 10, each: true}
	}
	if _, err := build(); err != nil {
		t.Fatal(err)
	}
	worlds := []struct {
		name  string
		redis bool
		gates int
		fault func(w *world, ctx context.Context) error
	}{
		{"memory, one node", false, 1, nil},
		{"redis, one node", true, 1, nil},
		{"redis, two nodes", true, 2, nil},
		{"redis, two nodes, one restarted", true, 2, func(w *world, ctx context.Context) error {
			w.until(ctx, s.length/2)
			if err := w.gates[1].stop(); err != nil {
				return err
			}
			return w.gates[1].start()
		}},
		{"redis, two nodes, Redis flushed", true, 2, func(w *world, ctx context.Context) error {
			w.until(ctx, s.length/2)
			return w.flush()
		}},
	}
	for _, c := range worlds {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, c.redis, c.gates)
			ctx, cancel := context.WithTimeout(t.Context(), life(s.length+60))
			defer cancel()
			w.began = time.Now()
			var all sync.WaitGroup
			w.populate(ctx, &all, &s)
			if c.fault != nil {
				all.Go(func() {
					if err := c.fault(w, ctx); err != nil {
						t.Error(err)
					}
				})
			}
			all.Wait()
			w.report(t, c.name)
		})
	}
}

// populate has accounts of all sorts begin to live.
func (w *world) populate(ctx context.Context, all *sync.WaitGroup, s *size) {
	n := 0
	account := func(group string, four []*kind) {
		w.household(ctx, all, fmt.Sprintf("u%d", n), group, four, *seed<<32+uint64(n), s.length, n)
		n += 4
	}
	groups := func(group string, accounts int, is func(*kind) bool) {
		var of []*kind
		for i := range kinds {
			if is(&kinds[i]) {
				of = append(of, &kinds[i])
			}
		}
		rand.New(rand.NewPCG(*seed, uint64(len(of)))).Shuffle(len(of), func(i, j int) { of[i], of[j] = of[j], of[i] })
		for i := range accounts {
			var four []*kind
			for j := range 4 {
				four = append(four, of[(4*i+j)%len(of)])
			}
			account(group, four)
		}
	}
	groups("textbook", s.textbook, func(k *kind) bool { return k.textbook })
	groups("every ending tells", s.closing, (*kind).tells)
	groups("mixed", s.mixed, func(*kind) bool { return true })
	if s.each {
		for i := range kinds {
			k := &kinds[i]
			account(k.name, []*kind{k, k, k, k})
		}
	}
}

// report prints a row for each group of accounts, in their order.
func (w *world) report(t *testing.T, world string) {
	rows := make(map[string]*row)
	var order []string
	users := slices.SortedFunc(maps.Keys(w.accounts), func(a, b string) int { return len(a)*1000 + int(a[len(a)-1]) - len(b)*1000 - int(b[len(b)-1]) })
	for _, user := range users {
		a := w.accounts[user]
		if rows[a.group] == nil {
			rows[a.group] = new(row)
			order = append(order, a.group)
		}
		r := a.judge()
		rows[a.group].add(&r)
	}
	var b bytes.Buffer
	table := tabwriter.NewWriter(&b, 0, 0, 1, ' ', tabwriter.Debug)
	fmt.Fprintf(table, "\n%s\tstarts\twith room\tadmitted\t\tby mistake\tinterrupted (steady)\ts beyond\tback, closed\tback, kept\tback after ttl\tunder\tover\tof\n", world)
	for _, name := range order {
		r := rows[name]
		fmt.Fprintf(table, "%s\t%d\t%d\t%d\t%.0f %%\t%d\t%d (%d) of %d\t%.1f of %.0f\t%d of %d\t%d of %d\t%d of %d\t%d\t%d\t%d\n",
			name, r.Starts, r.Room, r.Admitted, 100*float64(r.Admitted)/max(1, float64(r.Room)), r.Within, r.Interrupted, r.Steady, r.Played, r.Beyond, r.Watched,
			r.ClosedTaken, r.Closed, r.KeptTaken, r.Kept, r.LongTaken, r.Long, r.Under, r.Above, r.Samples)
	}
	table.Flush()
	for _, name := range order {
		for _, code := range slices.Sorted(maps.Keys(rows[name].Codes)) {
			fmt.Fprintf(&b, "%s: %d × %s\n", name, rows[name].Codes[code], code)
		}
	}
	t.Log(b.String())
}
