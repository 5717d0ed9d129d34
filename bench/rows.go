package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/streamguard/streamguard/bench/viewer"
	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/redisstore"
)

const (
	smallAudience = 1000
	users         = 100_000          // who use the API
	spread        = 20 * time.Second // of an audience's refreshes: a third of the interval
	portions      = 5                // of a pair's latencies, taken in turn; the median slice counts
)

// throughput measures a Caddy with the gate against the same one without:
// requests a second and processor time for each under full load, and p99 at
// half the load that the bare one bears. With audience there are two playbacks
// for each request a second, all known, and their refreshes fall due evenly
// while it is measured.
func throughput(l *lab, audience bool, origin, dir string) ([]row, error) {
	serve, err := l.serve(origin)
	if err != nil {
		return nil, err
	}
	redis, err := l.redis()
	if err != nil {
		return nil, err
	}
	gated, err := l.caddy("gated", gate("redis redis://"+redis.addr), serve)
	if err != nil {
		return nil, err
	}
	bare, err := l.caddy("bare", serve)
	if err != nil {
		return nil, err
	}
	warm, err := l.load(bare, "-dir", dir, "-duration", "3s")
	if err != nil {
		return nil, err
	}
	playbacks := smallAudience
	if audience {
		playbacks = int(2*warm.rate()) / 1000 * 1000
	}
	segments := []string{"-dir", dir, "-playbacks", strconv.Itoa(playbacks)}
	admit := func() error {
		rate := float64(playbacks) / spread.Seconds()
		_, err := l.load(gated, append(segments, "-mode", "admit", "-rate", fmt.Sprint(rate))...)
		return err
	}
	if !audience {
		if _, err := l.load(gated, append(segments, "-duration", "3s")...); err != nil {
			return nil, err
		}
	}
	half := func(s *server) (result, error) {
		return l.load(s, append(segments, "-mode", "paced", "-rate", fmt.Sprint(warm.rate()/2), "-duration", (duration()/portions).String())...)
	}

	what, goals := "1k playbacks", [3]goal{{"≥", 0.98}, {"≤", 1.03}, {"≤", 1.10}}
	if audience {
		what = fmt.Sprintf("%dk playbacks", playbacks/1000)
		goals[1].value = 1.08
		if dir == "4k" {
			goals[0].value = 0.95
		}
	}
	what = fmt.Sprintf("%s, %s KB segments, %s", origin, strings.TrimSuffix(dir, "k"), what)
	table := []row{
		{what: "throughput: " + what, partner: "without the gate", unit: "requests/s", goal: goals[0]},
		{what: "CPU time a request: " + what, partner: "without the gate", unit: "µs", goal: goals[1]},
		{what: "p99 at half load: " + what, partner: "without the gate", unit: "ms", goal: goals[2]},
	}
	servers := []*server{gated, bare}
	for n := range *pairs {
		var results [2]result
		for i := range servers {
			// Refreshes fall due for as long again as the admissions were spread over.
			if audience || n%2 == 1 {
				i = 1 - i
			}
			if audience && servers[i] == gated {
				if err := admit(); err != nil {
					return nil, err
				}
			}
			if results[i], err = l.full(servers[i], segments...); err != nil {
				return nil, err
			}
		}
		table[0].pair(results[0].rate(), results[1].rate())
		table[1].pair(results[0].cost(), results[1].cost())
		var p99 [2][]float64
		for n := range 2 * portions {
			i := n % 2
			if audience {
				i = n / portions // without a pause, after which refreshes would come all at once
			}
			r, err := half(servers[i])
			if err != nil {
				return nil, err
			}
			p99[i] = append(p99[i], r.P99)
		}
		table[2].pair(median(p99[0]), median(p99[1]))
		log.Printf("pair %d: throughput %s, CPU %s, p99 %s", n+1, table[0].last(), table[1].last(), table[2].last())
	}
	return table, guarded(redis, playbacks)
}

// connections measures what connections cost: those with one request each, and those
// that are held.
func connections(l *lab) ([]row, error) {
	const held = 8000
	serve, err := l.serve("file_server")
	if err != nil {
		return nil, err
	}
	table := []row{
		{what: "connections a second, each with one request, 4 KB", partner: "without the gate", unit: "connections/s", goal: goal{"≥", 0.95}},
		{what: "memory of a connection that has carried a request", partner: "without the gate", unit: "bytes", goal: goal{"≤", 1.15}},
	}
	for range *pairs {
		var rates, bytes [2]float64
		for i, name := range []string{"gated", "bare"} {
			route := []string{serve}
			if name == "gated" {
				route = []string{gate("memory"), serve}
			}
			s, err := l.caddy(name, route...) // a new one: memory once taken is not given back
			if err != nil {
				return nil, err
			}
			if _, err := l.load(s, "-duration", "2s"); err != nil {
				return nil, err
			}
			r, err := l.full(s, "-mode", "anew")
			if err != nil {
				return nil, err
			}
			rates[i] = r.rate()
			before, err := s.memory()
			if err != nil {
				return nil, err
			}
			done := make(chan error, 1)
			go func() {
				_, err := l.load(s, "-mode", "hold", "-conns", strconv.Itoa(held), "-duration", "8s")
				done <- err
			}()
			var most float64
			for over := false; !over; {
				select {
				case err := <-done:
					if over = true; err != nil {
						return nil, err
					}
				case <-time.After(500 * time.Millisecond):
					now, err := s.memory()
					if err != nil {
						return nil, err
					}
					most = max(most, now-before)
				}
			}
			bytes[i] = most / held
			s.cmd.Process.Kill()
			<-s.exited
		}
		table[0].pair(rates[0], rates[1])
		table[1].pair(bytes[0], bytes[1])
		log.Printf("connections: %s a second, memory %s", table[0].last(), table[1].last())
	}
	return table, nil
}

// serve is what answers behind the gate.
func (l *lab) serve(origin string) (string, error) {
	if origin == "file_server" {
		return "root " + l.path("files") + "\n\t\tfile_server", nil
	}
	addr, err := l.origin()
	// Caddy keeps 32 idle connections by default, half of what the load has.
	return "reverse_proxy " + addr + " {\n\t\t\ttransport http {\n\t\t\t\tkeepalive_idle_conns_per_host 128\n\t\t\t}\n\t\t}", err
}

func gate(store string, options ...string) string {
	return "stream_guard {\n\t\t\tuser {header.X-User-Id}\n\t\t\tstore " + store + "\n\t\t\t" + strings.Join(options, "\n\t\t\t") + "\n\t\t}"
}

// guarded insists that the playbacks hold guards: that the gate has gated. A
// few may be over by now.
func guarded(redis *server, playbacks int) error {
	c, err := net.Dial("tcp", redis.addr)
	if err != nil {
		return err
	}
	defer c.Close()
	fmt.Fprint(c, "DBSIZE\r\n")
	var users int
	if _, err := fmt.Fscanf(c, ":%d\r\n", &users); err != nil {
		return err
	}
	if want := playbacks / viewer.PerUser; users > want || users < want*9/10 {
		return fmt.Errorf("%d users in Redis, want %d", users, want)
	}
	return nil
}

// ratelimit measures the gate against caddy-ratelimit, which counts in memory.
func ratelimit(l *lab) ([]row, error) {
	serve, err := l.serve("file_server")
	if err != nil {
		return nil, err
	}
	redis, err := l.redis()
	if err != nil {
		return nil, err
	}
	gated, err := l.caddy("gated", gate("redis redis://"+redis.addr), serve)
	if err != nil {
		return nil, err
	}
	// Each user makes about 50 requests a second.
	limited, err := l.caddy("ratelimit", "rate_limit {\n\t\t\tzone users {\n\t\t\t\tkey {header.X-User-Id}\n\t\t\t\tevents 1000\n\t\t\t\twindow 1s\n\t\t\t}\n\t\t}", serve)
	if err != nil {
		return nil, err
	}
	table := []row{
		{what: "throughput: file_server, 4 KB segments, 1k playbacks", partner: "caddy-ratelimit 0.1.0", unit: "requests/s", goal: goal{">", 1}},
		{what: "CPU time a request: the same", partner: "caddy-ratelimit 0.1.0", unit: "µs", goal: goal{"<", 1}},
	}
	results, err := l.turns([]*server{gated, limited}, "-mode", "segments", "-playbacks", strconv.Itoa(smallAudience))
	for _, r := range results {
		table[0].pair(r[0].rate(), r[1].rate())
		table[1].pair(r[0].cost(), r[1].cost())
	}
	return table, err
}

// playlists measures reloads of a live playlist under a token, packed by the
// origin, against the same without the gate. Into relative URLs nothing has to
// be written; into absolute ones everything.
func playlists(l *lab, urls string) ([]row, error) {
	serve, err := l.serve("reverse_proxy")
	if err != nil {
		return nil, err
	}
	gated, err := l.caddy("gated", gate("memory", "playback auto"), serve)
	if err != nil {
		return nil, err
	}
	bare, err := l.caddy("bare", serve)
	if err != nil {
		return nil, err
	}
	what, goals := "reload of a playlist of 7,200 "+urls+" URLs, gzip", [2]goal{{"≥", 0.9}, {"≤", 1}}
	if urls == "absolute" {
		goals = [2]goal{{}, {"≤", 1.1}}
	}
	table := []row{
		{what: "throughput: " + what, partner: "without the gate", unit: "requests/s", goal: goals[0]},
		{what: "CPU time a request: the same", partner: "without the gate", unit: "µs"},
		{what: "body: the same", partner: "without the gate", unit: "bytes", goal: goals[1]},
	}
	results, err := l.turns([]*server{gated, bare}, "-mode", "playlists", "-dir", urls, "-playbacks", strconv.Itoa(smallAudience))
	for _, r := range results {
		table[0].pair(r[0].rate(), r[1].rate())
		table[1].pair(r[0].cost(), r[1].cost())
		table[2].pair(float64(r[0].Bytes/r[0].Requests), float64(r[1].Bytes/r[1].Requests))
	}
	return table, err
}

// turns puts load on servers in turn, after a warm-up of each, and returns the
// results of each round.
func (l *lab) turns(servers []*server, args ...string) ([][]result, error) {
	for _, s := range servers {
		if _, err := l.load(s, append(args, "-duration", "3s")...); err != nil {
			return nil, err
		}
	}
	rounds := make([][]result, *pairs)
	for n := range rounds {
		rounds[n] = make([]result, len(servers))
		for i := range servers {
			if n%2 == 1 {
				i = len(servers) - 1 - i
			}
			r, err := l.full(servers[i], args...)
			if err != nil {
				return nil, err
			}
			log.Printf("round %d: %s %.0f requests/s, %.1f µs", n+1, servers[i].name, r.rate(), r.cost())
			rounds[n][i] = r
		}
	}
	return rounds, nil
}

// handler measures the handler by itself; see alone.
func handler(l *lab) ([]row, error) {
	var measured []struct {
		Leases              int
		CMCD                string
		Nanoseconds, Caddy  []float64
		Allocs, CaddyAllocs float64
	}
	out, err := l.output("", l.path("alone"), "-what", "handler", "-pairs", fmt.Sprint(*pairs), "-duration", (duration() / 5).String())
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(out, &measured); err != nil {
		return nil, err
	}
	var table []row
	for _, m := range measured {
		time := row{
			what:    fmt.Sprintf("handler alone, lease hit, %dk leases, CMCD %s", m.Leases/1000, m.CMCD),
			partner: "Caddy's preparation of a request", unit: "ns", goal: goal{"≤", 0.35},
		}
		if m.Leases > 1000 {
			time.goal.value = 0.6
		}
		for i := range m.Nanoseconds {
			time.pair(m.Nanoseconds[i], m.Caddy[i])
		}
		allocs := row{what: "its allocations", unit: "allocations", goal: goal{"≤", 3}}
		allocs.value(m.Allocs)
		table = append(table, time, allocs)
	}
	return table, nil
}

// leases measures the lease table; see alone.
func leases(l *lab) ([]row, error) {
	var t struct{ Bytes, Few, Swept, Deleted []float64 }
	out, err := l.output("", l.path("alone"), "-what", "table", "-pairs", fmt.Sprint(*pairs))
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(out, &t); err != nil {
		return nil, err
	}
	table := []row{
		{what: "lease table, 1M leases", unit: "bytes a lease", goal: goal{"≤", 120}},
		{what: "longest wait while 1M leases are swept", partner: "the same with 1k leases", unit: "ms", absolute: true, goal: goal{"≤", 1}},
		{what: "longest wait while 1M leases are swept away", partner: "the same with 1k leases", unit: "ms", absolute: true, goal: goal{"≤", 1}},
	}
	for i := range t.Bytes {
		table[0].value(t.Bytes[i])
		table[1].pair(t.Swept[i], t.Few[i])
		table[2].pair(t.Deleted[i], t.Few[i])
	}
	return table, nil
}

var callsLine = regexp.MustCompile(`: 4 s segments: ([0-9.]+) calls a minute`)

// calls takes the store calls of a viewer's minute from the test that counts
// them, in virtual time.
func calls(l *lab) ([]row, error) {
	out, err := l.output("..", "go", "test", "./lease", "-count=1", "-run", "^TestStoreCallsPerViewerMinute$", "-v")
	if err != nil {
		return nil, err
	}
	found := callsLine.FindSubmatch(out)
	if found == nil {
		return nil, fmt.Errorf("the test does not say how many:\n%s", out)
	}
	n, err := strconv.ParseFloat(string(found[1]), 64)
	r := row{what: "store calls a viewer-minute, 4 s segments, over an hour", partner: "one for each of 30 requests", unit: "calls", goal: goal{"≤", 3.2}}
	r.value(n)
	return []row{r}, err
}

// api measures the cycle of POST, PATCH and DELETE against a peer on Node, with
// guards of others in Redis.
func api(l *lab) ([]row, error) {
	if err := l.installPeer(); err != nil {
		return nil, err
	}
	memory, err := l.caddy("memory", gate("memory", "limit 10"))
	if err != nil {
		return nil, err
	}
	servers := []*server{memory}
	for _, guards := range []int{0, 100_000, 1_000_000} {
		ours, err := l.redis()
		if err != nil {
			return nil, err
		}
		theirs, err := l.redis()
		if err != nil {
			return nil, err
		}
		if err := fill(l.ctx, ours, theirs, guards); err != nil {
			return nil, err
		}
		name := fmt.Sprintf("%dk", guards/1000)
		gated, err := l.caddy("gated-"+name, gate("redis redis://"+ours.addr, "limit 10"))
		if err != nil {
			return nil, err
		}
		peer, err := l.peer(theirs)
		if err != nil {
			return nil, err
		}
		peer.name += "-" + name
		servers = append(servers, gated, peer)
	}
	results, err := l.turns(servers, "-mode", "guards", "-playbacks", strconv.Itoa(users))
	const what, partner = "POST/PATCH/DELETE", "Fastify 5 + ioredis 6"
	table := []row{
		{what: what + ", 0 guards in Redis", partner: partner, goal: goal{"≥", 1.1}},
		{what: what + ", 100k guards in Redis", partner: partner},
		{what: what + ", 1M guards in Redis", partner: partner},
		{what: what + ", 1M guards in Redis", partner: "itself with 0 guards", goal: goal{"≥", 0.95}},
		{what: what + ", memory store", partner: partner + ", 0 guards", goal: goal{"≥", 1.35}},
	}
	for i, of := range [][2]int{{1, 2}, {3, 4}, {5, 6}, {5, 1}, {0, 2}} {
		table[i].unit = "requests/s"
		for _, r := range results {
			table[i].pair(r[of[0]].rate(), r[of[1]].rate())
		}
	}
	return table, err
}

// fill puts as many guards into our Redis and the peer's, if there is one, in
// their own layouts, 1.55 for each user. They outlast the measurement.
func fill(ctx context.Context, ours, theirs *server, guards int) error {
	store, err := redisstore.Open(redisstore.Options{Addresses: []string{ours.addr}, Timeout: time.Minute})
	if err != nil {
		return err
	}
	defer store.Close()
	var answers *bufio.Reader
	commands := bufio.NewWriter(io.Discard)
	if theirs != nil {
		peer, err := net.Dial("tcp", theirs.addr)
		if err != nil {
			return err
		}
		defer peer.Close()
		answers, commands = bufio.NewReader(peer), bufio.NewWriter(peer)
	}
	policy := guard.Policy{Limit: 3, Interval: 12 * time.Hour, TTL: 24 * time.Hour}
	for n := 0; n < guards; {
		var requests []guard.Request
		for ; n < guards && len(requests) < 1000; n++ {
			// Not one of those who use the API meanwhile.
			user := userOf(n)
			c := guard.Claim{User: user, ID: guard.NewID(user, ""), Stream: fmt.Sprintf("stream-%017d", n)}
			requests = append(requests, guard.Request{Claim: c, Policy: policy})
			fmt.Fprintf(commands, "HSET sg:%s %s %d:%d:%s\r\n", user, c.ID, time.Now().UnixMilli(), time.Now().Add(policy.TTL).UnixMilli(), c.Stream)
			fmt.Fprintf(commands, "EXPIRE sg:%s %.0f\r\n", user, policy.TTL.Seconds())
		}
		for _, a := range store.AcquireAll(ctx, requests) {
			if a.Err != nil {
				return a.Err
			}
		}
		if err := commands.Flush(); err != nil {
			return err
		}
		for range 2 * len(requests) {
			if theirs == nil {
				break
			}
			if answer, err := answers.ReadString('\n'); err != nil || answer != ":1\r\n" {
				return fmt.Errorf("filling the peer's Redis: %q, %v", answer, err)
			}
		}
	}
	return nil
}
