// Command alone measures what needs no server: the handler by itself, and the
// lease table. It prints as JSON one list of numbers for each measure, and is a
// process of its own, so that its heap is nobody else's.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"log"
	"os"
	"runtime/pprof"
	"time"

	"github.com/streamguard/streamguard/guard"
)

var (
	what     = flag.String("what", "handler", "handler or table")
	pairs    = flag.Int("pairs", 5, "repetitions")
	duration = flag.Duration("duration", time.Second, "how long each repetition takes")
	profile  = flag.String("profile", "", "file for a CPU profile")
	leases   = flag.Int("leases", 1_000_000, "leases in the large table")
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("alone: ")
	flag.Parse()
	measure := map[string]func() (any, error){"handler": handler, "table": table}[*what]
	if measure == nil {
		log.Fatalf("%q is not a measure", *what)
	}
	if *profile != "" {
		file, err := os.Create(*profile)
		if err != nil {
			log.Fatal(err)
		}
		defer file.Close()
		pprof.StartCPUProfile(file)
		defer pprof.StopCPUProfile()
	}
	result, err := measure()
	if err != nil {
		log.Fatal(err)
	}
	json.NewEncoder(os.Stdout).Encode(result)
}

// willing admits whoever asks and remembers nobody.
type willing struct{}

func (willing) Acquire(_ context.Context, c guard.Claim, p guard.Policy) (guard.Verdict, error) {
	return guard.Verdict{Outcome: guard.Admitted, Guard: guard.Guard{ID: c.ID}, Held: 1, Limit: p.Limit}, nil
}

func (willing) Refresh(context.Context, string, guard.ID, guard.Policy) (guard.Verdict, error) {
	return guard.Verdict{Outcome: guard.Absent}, nil
}

func (willing) Release(context.Context, string, guard.ID, guard.Policy) (bool, error) {
	return false, nil
}

func (willing) Revoke(context.Context, string, guard.ID, guard.Policy) (bool, error) {
	return false, nil
}

func (willing) CloseGuard(context.Context, string, guard.ID) (bool, error) { return false, nil }

func (willing) Undo(context.Context, string, guard.ID, []guard.ID) (bool, error) {
	return false, nil
}

func (willing) List(context.Context, string) ([]guard.Guard, error) { return nil, nil }
