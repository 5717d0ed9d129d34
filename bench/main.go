// Command bench measures Streamguard against its partners, side by side in one
// run, prints the table and, when all rows were measured, writes it into
// docs/performance.md. It runs in its own folder, on Linux.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"regexp"
	"syscall"
	"time"
)

var (
	rows    = flag.String("rows", "", "regular expression of the `names` to measure; all by default, which -list lists")
	list    = flag.Bool("list", false, "list the names of the rows")
	pairs   = flag.Int("pairs", 5, "pairs, or repetitions")
	seconds = flag.Float64("seconds", 10, "how long each run of a pair takes")
	profile = flag.String("profile", "", "`folder` for a CPU profile of each Caddy's last run, which costs it some")
)

func main() {
	log.SetFlags(log.Ltime)
	flag.Parse()
	if err := bench(); err != nil {
		log.Fatal(err)
	}
}

func bench() error {
	chosen, err := regexp.Compile(*rows)
	if err != nil {
		return err
	}
	if *pairs < 1 || *seconds <= 0 {
		return fmt.Errorf("%d pairs of %v seconds are none", *pairs, *seconds)
	}
	var names []measure
	for _, m := range measures() {
		if chosen.MatchString(m.name) {
			names = append(names, m)
		}
	}
	if *list {
		for _, m := range names {
			fmt.Println(m.name)
		}
		return nil
	}
	if len(names) == 0 {
		return fmt.Errorf("no row is named like %q", *rows)
	}
	if *profile != "" {
		if err := os.MkdirAll(*profile, 0o755); err != nil {
			return err
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	l, err := newLab(ctx)
	if err != nil {
		return err
	}
	defer l.close()
	var table []row
	for _, m := range names {
		log.Print(m.name)
		measured, err := m.run(l)
		l.stop()
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		for _, r := range measured {
			log.Print(r)
		}
		table = append(table, measured...)
	}
	text := format(table)
	fmt.Print(text)
	if *rows != "" {
		return nil
	}
	return write(text)
}

// measure is a part of the bench that can be run by itself.
type measure struct {
	name string
	run  func(*lab) ([]row, error)
}

func measures() (list []measure) {
	for _, playbacks := range []string{"throughput", "audience"} {
		for _, origin := range []string{"file_server", "reverse_proxy"} {
			for _, dir := range []string{"4k", "200k"} {
				list = append(list, measure{playbacks + "/" + origin + "/" + dir, func(l *lab) ([]row, error) {
					return throughput(l, playbacks == "audience", origin, dir)
				}})
			}
		}
	}
	for _, urls := range []string{"relative", "absolute"} {
		list = append(list, measure{"playlists/" + urls, func(l *lab) ([]row, error) { return playlists(l, urls) }})
	}
	return append(list,
		measure{"connections", connections},
		measure{"ratelimit", ratelimit},
		measure{"handler", handler},
		measure{"calls", calls},
		measure{"table", leases},
		measure{"api", api},
		measure{"verbs", verbs},
	)
}

func duration() time.Duration { return time.Duration(*seconds * float64(time.Second)) }
