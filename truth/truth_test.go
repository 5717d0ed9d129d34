// Package truth plays a population whose truth is known against the built binary,
// and tells how exact the gate's count is.
package truth

import (
	"context"
	"flag"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

var (
	long = flag.Bool("truth.long", false, "play all kinds of players, and everything for longer")
	why  = flag.String("truth.why", "", "play this account only (u84), and tell its story and what the gates say; all: tell the stories of those in which something went wrong")
	seed = flag.Uint64("truth.seed", 1, "of who does what when")
)

// Groups of accounts.
const (
	textbook = "textbook players"
	telling  = "every ending closes its connection or says goodbye"
	mixed    = "all kinds mixed"
)

// size is how much is played.
type size struct {
	length                   float64 // seconds of life
	textbook, closing, mixed int     // accounts
	each                     bool    // and one of each kind
}

// worlds are what is played in, each by a population of its own.
var worlds = []struct {
	name  string
	redis bool
	gates int
	fault func(ctx context.Context, w *world) error // in the middle of it
	lost  bool                                      // are the guards, by the fault
}{
	{"memory, one node", false, 1, nil, false},
	{"redis, one node", true, 1, nil, false},
	{"redis, two nodes", true, 2, nil, false},
	{"redis, two nodes, one restarted after the other", true, 2, func(ctx context.Context, w *world) error {
		for _, g := range w.gates {
			if err := g.stop(); err != nil {
				return err
			}
			if err := g.start(); err != nil {
				return err
			}
			w.until(ctx, w.now()+10)
		}
		return nil
	}, false},
	{"redis, two nodes, Redis is flushed", true, 2, func(_ context.Context, w *world) error { return w.flush() }, true},
}

// TestTruth plays all worlds at once, and says what was found in them.
func TestTruth(t *testing.T) {
	s := size{length: 210, textbook: 8, closing: 14, mixed: 21}
	if *long {
		s = size{length: 1500, textbook: 6, closing: 10, mixed: 14, each: true}
	}
	if _, err := build(); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var all report
	t.Run("in", func(t *testing.T) {
		for _, c := range worlds {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, c.redis, c.gates)
				ctx, cancel := context.WithTimeout(t.Context(), life(s.length+60))
				defer cancel()
				w.began = time.Now()
				var playing sync.WaitGroup
				w.populate(ctx, &playing, &s)
				if c.fault != nil {
					playing.Go(func() {
						w.until(ctx, s.length/2)
						if err := c.fault(ctx, w); err != nil {
							t.Error(err)
						}
					})
				}
				playing.Wait()
				var found report
				found.of(w)
				mu.Lock()
				defer mu.Unlock()
				t.Logf("%s\n%s", c.name, &found)
				if *why != "" {
					for _, a := range w.accounts {
						if a.user == *why || *why == "all" && a.wrong() {
							t.Log(a.why())
						}
					}
					for _, g := range w.gates {
						t.Log(g.said)
					}
				}
				for _, group := range found.groups {
					for _, broken := range found.rows[group].breaks(c.lost) {
						t.Errorf("%s: %s", group, broken)
					}
				}
				if c.fault == nil {
					all.of(w)
				}
			})
		}
	})
	t.Logf("all of them without a fault\n%s", &all)
	for _, group := range all.groups {
		for _, broken := range all.rows[group].wants(group) {
			t.Errorf("%s: %s", group, broken)
		}
	}
}

// populate has accounts of all sorts begin to live.
func (w *world) populate(ctx context.Context, playing *sync.WaitGroup, s *size) {
	group := func(name string, accounts int, is func(*kind) bool) {
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
			w.household(ctx, playing, name, four, s.length)
		}
	}
	group(textbook, s.textbook, func(k *kind) bool { return k.textbook })
	group(telling, s.closing, (*kind).tells)
	group(mixed, s.mixed, func(*kind) bool { return true })
	if s.each {
		for i := range kinds {
			k := &kinds[i]
			w.household(ctx, playing, k.name, []*kind{k, k, k, k}, s.length)
		}
	}
}
