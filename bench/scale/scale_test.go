// Package scale plays the requests of a large audience through the leases of
// several gates, in virtual time, and says what Redis is asked.
package scale

import (
	"flag"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

var (
	viewers = flag.Int("viewers", 20_000, "viewers to play")
	gates   = flag.Int("gates", 5, "gates they play at")
	as      = flag.Int("as", 10_000_000, "viewers that the figures are multiplied to")
	seed    = flag.Uint64("seed", 1, "of what the viewers do")
)

const (
	bytesPerGuard  = 169 // of Redis: go test ./redisstore -run '^$' -bench MemoryPerGuard
	bytesPerMark   = 39
	bytesPerLease  = 68.4             // docs/performance.md
	scriptMicros   = 8.               // of Redis' processor in a script: docs/performance.md
	allMicros      = 27.              // and with all else that a refresh costs it in batches of a dozen
	bytesPerNotice = 4 + 13 + 15 + 22 // a message of an ending, for each gate
)

// TestScale prints a line for each situation. The same seed gives the same lines,
// but for leases that are over: those are forgotten within ten seconds.
func TestScale(t *testing.T) {
	factor := float64(*as) / float64(*viewers)
	fmt.Printf("%d viewers at %d gates, multiplied by %g\n", *viewers, *gates, factor)
	fmt.Printf("%-44s %9s %9s %9s  %s\n", "", "requests", "calls", "peak", "calls a second by kind; bytes; memory")
	for _, s := range []struct {
		name    string
		scatter bool    // requests of a viewer come to any gate
		late    float64 // share of the viewers who start when it is measured
		crowd   bool    // and are refused
		happen  func(a *audience)
	}{
		{name: "an evening"},
		{name: "an evening, requests to any gate", scatter: true},
		{name: "a gate dies", happen: func(a *audience) {
			dead := a.rng.IntN(len(a.gates))
			a.gates[dead].stop()
			a.gates[dead] = newGate(a.store)
			for i := range a.viewers {
				if v := &a.viewers[i]; v.gate == dead {
					v.gate = (dead + 1 + a.rng.IntN(len(a.gates)-1)) % len(a.gates)
				}
			}
		}},
		{name: "Redis comes back empty", happen: func(a *audience) { a.store.flush() }},
		{name: "all gates are restarted, one in 10 s", happen: func(a *audience) {
			for i := range a.gates {
				a.gates[i].stop()
				a.gates[i] = newGate(a.store)
				a.play(10 * time.Second)
			}
		}},
		{name: "one in five starts within 60 s (a final)", late: 0.2},
		{name: "one in a hundred is refused and retries", late: 0.01, crowd: true},
	} {
		synctest.Test(t, func(t *testing.T) {
			a := newAudience(*seed, *viewers, *gates, !s.scatter)
			defer a.close()
			n := len(a.viewers)
			first := n - int(float64(n)*s.late)
			for i := first; s.crowd && i < n; i++ { // their user's one slot is taken
				a.viewers[i].user, a.viewers[i].crowd = a.viewers[i-first].user, true
			}
			a.start(0, first, time.Minute)
			a.play(4 * time.Minute)
			a.start(first, n, time.Minute)
			from := len(a.store.seconds)
			if s.happen != nil {
				s.happen(a)
			}
			a.play(90 * time.Second)
			report(s.name, a, from, factor)
		})
	}
}

func report(name string, a *audience, from int, factor float64) {
	var sum, peak load
	seconds := a.store.seconds[from:]
	for _, l := range seconds {
		sum.requests += l.requests
		sum.trips += l.trips
		sum.in += l.in
		sum.out += l.out
		for verb, n := range l.calls {
			sum.calls[verb] += n
		}
		if l.all() > peak.all() {
			peak = l
		}
	}
	each := func(n int) float64 { return float64(n) * factor / float64(len(seconds)) }
	leases := 0
	for _, g := range a.gates {
		n, _ := g.Size()
		leases += n
	}
	guards, marks := a.store.size()
	fmt.Printf("%-44s %9.0f %9.0f %9.0f  ", name, each(sum.requests), each(sum.all()), float64(peak.all())*factor)
	for verb, n := range sum.calls {
		if n > 0 {
			fmt.Printf("%s %.0f, ", verbNames[verb], each(n))
		}
	}
	fmt.Printf("%.1f a round trip of refreshes; ", float64(sum.calls[refresh]+sum.calls[restore])/float64(max(sum.trips, 1)))
	fmt.Printf("%.1f MB/s in, %.1f out, %.1f news to each 100 gates; ", each(sum.in)/1e6, each(sum.out)/1e6, each(sum.calls[release])*bytesPerNotice*100/1e6)
	fmt.Printf("CPU of Redis %.1f to %.1f cores, at the peak %.1f; ", each(sum.all())*scriptMicros/1e6, each(sum.all())*allMicros/1e6, float64(peak.all())*factor*allMicros/1e6)
	fmt.Printf("%.2f M guards, %.2f M marks, %.0f MB; ", float64(guards)*factor/1e6, float64(marks)*factor/1e6, (float64(guards)*bytesPerGuard+float64(marks)*bytesPerMark)*factor/1e6)
	fmt.Printf("%.1f M leases, %.0f MB in all gates\n", float64(leases)*factor/1e6, float64(leases)*bytesPerLease*factor/1e6)
}
