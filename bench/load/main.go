// Command load asks a server over keep-alive connections and says as JSON how
// that went. It is a process of its own, so that what it costs is not counted
// as the server's, and costs as little as it can.
//
//	segments: each connection asks as fast as it is answered
//	paced:    requests start at a rate, whether or not earlier ones are answered
//	admit:    paced, each playback once, in order
//	guards:   each connection repeats POST, PATCH and DELETE on the guards API
//	anew:     as segments, each request over a connection of its own
//	hold:     each connection asks once and is kept for as long
//	playlists: each connection reloads playlists under tokens, after a segment of each
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/streamguard/streamguard/bench/viewer"
)

var (
	mode      = flag.String("mode", "segments", "segments, paced, admit, guards, anew, hold or playlists")
	addr      = flag.String("addr", "", "host:port of the server")
	conns     = flag.Int("conns", 64, "connections")
	dir       = flag.String("dir", "4k", "first directory of the paths")
	playbacks = flag.Uint64("playbacks", 1000, "playbacks, or for guards users")
	duration  = flag.Duration("duration", 5*time.Second, "how long")
	rate      = flag.Float64("rate", 0, "requests a second, for paced and admit")
)

// Result is what the command prints.
type Result struct {
	Requests int
	Bytes    int // of bodies
	Seconds  float64
	P50, P99 float64 // milliseconds from the moment a request was due; paced only
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("load: ")
	flag.Parse()
	// Two threads: one sends or waits for the clock, one receives.
	runtime.GOMAXPROCS(2)
	r, err := run()
	if err != nil {
		log.Fatal(err)
	}
	json.NewEncoder(os.Stdout).Encode(r)
}

func run() (Result, error) {
	clients := make([]*client, *conns)
	for i := range clients {
		c, err := net.Dial("tcp", *addr)
		if err != nil {
			return Result{}, err
		}
		defer c.Close()
		clients[i] = &client{Conn: c, n: uint64(i), buf: make([]byte, 64<<10), rng: rand.New(rand.NewPCG(uint64(i), uint64(os.Getpid())))}
	}
	// A server that does not answer ends the run.
	limit := time.Now().Add(*duration + 30*time.Second)
	start := time.Now()
	deadline := start.Add(*duration)
	errs := make(chan error, *conns)
	var work func(*client) error
	var idle chan *client
	switch *mode {
	case "segments":
		work = func(c *client) error { return c.segments(deadline) }
	case "anew":
		work = func(c *client) error { return c.anew(deadline) }
	case "hold":
		work = func(c *client) error { return c.hold(deadline) }
	case "guards":
		work = func(c *client) error { return c.guards(deadline) }
	case "playlists":
		work = func(c *client) error { return c.playlists(deadline) }
	case "paced", "admit":
		idle = make(chan *client, *conns)
		work = func(c *client) error { return c.receive(idle) }
	default:
		return Result{}, fmt.Errorf("%q is not a mode", *mode)
	}
	var running sync.WaitGroup
	for _, c := range clients {
		c.SetDeadline(limit)
		c.due = make(chan time.Time, 1)
		if idle != nil {
			idle <- c
		}
		running.Go(func() {
			if err := work(c); err != nil {
				errs <- err
			}
		})
	}
	if idle != nil {
		if err := pace(idle, start, errs); err != nil {
			return Result{}, err
		}
		for _, c := range clients {
			close(c.due)
		}
	}
	running.Wait()
	r := Result{Seconds: time.Since(start).Seconds()}
	select {
	case err := <-errs:
		return r, err
	default:
	}
	var latencies []time.Duration
	for _, c := range clients {
		r.Requests += c.done
		r.Bytes += c.bytes
		latencies = append(latencies, c.latencies...)
	}
	if slices.Sort(latencies); len(latencies) > 0 {
		r.P50 = ms(latencies[len(latencies)/2])
		r.P99 = ms(latencies[len(latencies)*99/100])
	}
	return r, nil
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// pace sends requests when they are due, at random moments of the rate asked
// for (a Poisson process; evenly for admit). It sleeps by the kernel's clock:
// Go's timers may be a millisecond late. A request for which no connection is
// free waits, and its waiting counts.
func pace(idle chan *client, start time.Time, errs chan error) error {
	runtime.LockOSThread()
	const prSetTimerSlack = 29
	syscall.RawSyscall(syscall.SYS_PRCTL, prSetTimerSlack, 1, 0)
	rng := rand.New(rand.NewPCG(0, uint64(os.Getpid())))
	due := start
	for n := uint64(0); ; n++ {
		gap := time.Duration(float64(time.Second) / *rate)
		playback := n
		if *mode == "paced" {
			gap = time.Duration(rng.ExpFloat64() * float64(gap))
			playback = rng.Uint64N(*playbacks)
		}
		due = due.Add(gap)
		if *mode == "admit" && n == *playbacks || *mode == "paced" && due.Sub(start) > *duration {
			return nil
		}
		if wait := time.Until(due); wait > 0 {
			t := syscall.NsecToTimespec(int64(wait))
			syscall.Nanosleep(&t, nil)
		}
		select {
		case c := <-idle:
			c.due <- due
			if err := c.ask(playback); err != nil {
				return err
			}
		case err := <-errs:
			return err
		}
	}
}

// client is one connection.
type client struct {
	net.Conn
	n         uint64 // of the connections
	rng       *rand.Rand
	buf       []byte // of the answer
	request   []byte
	due       chan time.Time // of the request under way, when paced
	done      int
	bytes     int // of bodies
	latencies []time.Duration
}

// segments asks for a random playback's segment, again and again.
func (c *client) segments(deadline time.Time) error {
	for time.Now().Before(deadline) {
		if err := c.ask(c.rng.Uint64N(*playbacks)); err != nil {
			return err
		}
		if _, err := c.answer("200"); err != nil {
			return err
		}
	}
	return nil
}

// anew asks for a random playback's segment over a connection of its own, again and again.
func (c *client) anew(deadline time.Time) error {
	for time.Now().Before(deadline) {
		fresh, err := net.Dial("tcp", *addr)
		if err != nil {
			return err
		}
		c.Conn = fresh
		c.SetDeadline(deadline.Add(30 * time.Second))
		err = c.ask(c.rng.Uint64N(*playbacks))
		if err == nil {
			_, err = c.answer("200")
		}
		c.Conn.(*net.TCPConn).SetLinger(0) // or the ports of the machine are used up
		c.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// hold asks for a segment of the connection's own playback, and for nothing more.
func (c *client) hold(deadline time.Time) error {
	if err := c.ask(c.n % *playbacks); err != nil {
		return err
	}
	_, err := c.answer("200")
	time.Sleep(time.Until(deadline))
	return err
}

// playlists reloads the playlists of the connection's own playbacks at random,
// as they do whose segments hold a guard.
func (c *client) playlists(deadline time.Time) error {
	get := func(n uint64, file string) error {
		b := append(append(append(c.request[:0], "GET /"...), *dir...), "/~"...)
		b = append(append(viewer.AppendSID(b, n), '/'), file...)
		b = append(viewer.AppendUser(append(b, " HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\nX-User-Id: "...), n), "\r\n\r\n"...)
		c.request = b
		if _, err := c.Write(b); err != nil {
			return err
		}
		_, err := c.answer("200")
		return err
	}
	own := max(1, *playbacks/uint64(*conns))
	for n := range own {
		if err := get(c.n*own+n, "1.m4s"); err != nil {
			return err
		}
	}
	c.done, c.bytes = 0, 0
	for time.Now().Before(deadline) {
		if err := get(c.n*own+c.rng.Uint64N(own), "live.m3u8"); err != nil {
			return err
		}
	}
	return nil
}

// receive receives what pace asks for.
func (c *client) receive(idle chan<- *client) error {
	for due := range c.due {
		if _, err := c.answer("200"); err != nil {
			return err
		}
		c.latencies = append(c.latencies, time.Since(due))
		idle <- c
	}
	return nil
}

// ask sends the request for a playback's segment.
func (c *client) ask(n uint64) error {
	b := append(c.request[:0], "GET "...)
	b = append(viewer.AppendPath(b, *dir, n), '?')
	b = append(viewer.AppendQuery(b, n), " HTTP/1.1\r\nHost: localhost\r\nX-User-Id: "...)
	b = append(viewer.AppendUser(b, n), "\r\n\r\n"...)
	c.request = b
	_, err := c.Write(b)
	return err
}

// guards starts, refreshes and ends a guard of a random user, again and again.
func (c *client) guards(deadline time.Time) error {
	var id []byte
	for time.Now().Before(deadline) {
		n := c.rng.Uint64N(*playbacks) * viewer.PerUser
		body, err := c.call("POST", nil, n, "201")
		if err != nil {
			return err
		}
		_, rest, found := bytes.Cut(body, []byte(`"guardId":"`))
		if !found || len(rest) < 36 {
			return fmt.Errorf("no guard in %q", body)
		}
		id = append(id[:0], rest[:36]...)
		if _, err := c.call("PATCH", id, n, "200"); err != nil {
			return err
		}
		if _, err := c.call("DELETE", id, n, "204"); err != nil {
			return err
		}
	}
	return nil
}

// call makes a call about a guard. POST has no id yet and says what is played.
func (c *client) call(method string, id []byte, n uint64, want string) ([]byte, error) {
	const body = `{"streamId":"stream-0123456789abcdef"}`
	b := append(append(c.request[:0], method...), " /guards"...)
	if id != nil {
		b = append(append(b, '/'), id...)
	}
	b = append(b, " HTTP/1.1\r\nHost: localhost\r\nX-User-Id: "...)
	b = viewer.AppendUser(b, n)
	if id == nil {
		b = append(b, "\r\nContent-Type: application/json\r\nContent-Length: "...)
		b = strconv.AppendInt(b, int64(len(body)), 10)
		b = append(b, "\r\n\r\n"+body...)
	} else {
		b = append(b, "\r\n\r\n"...)
	}
	c.request = b
	if _, err := c.Write(b); err != nil {
		return nil, err
	}
	return c.answer(want)
}

var (
	endOfHeader   = []byte("\r\n\r\n")
	contentLength = []byte("\r\ncontent-length: ")
)

// answer reads an answer to its end and insists on its status. It returns the
// body if that fits in the buffer; a segment's need not.
func (c *client) answer(want string) ([]byte, error) {
	var n, end int
	for {
		m, err := c.Read(c.buf[n:])
		if err != nil {
			return nil, err
		}
		n += m
		if end = bytes.Index(c.buf[:n], endOfHeader); end >= 0 {
			break
		}
		if n == len(c.buf) {
			return nil, errors.New("the header has no end")
		}
	}
	header, body := c.buf[:end+2], c.buf[end+len(endOfHeader):n]
	if len(header) < 12 || string(header[9:12]) != want {
		return nil, fmt.Errorf("want %s, got %q", want, c.buf[:min(n, 500)])
	}
	length := 0
	if want != "204" {
		var err error
		if length, err = lengthOf(header); err != nil {
			return nil, err
		}
	}
	for rest := length - len(body); rest > 0; {
		into := c.buf
		if length < len(c.buf)-len(header) {
			into = c.buf[n:]
		}
		m, err := c.Read(into[:min(rest, len(into))])
		if err != nil {
			return nil, err
		}
		rest -= m
		n += m
	}
	c.done++
	c.bytes += length
	if n := end + len(endOfHeader) + length; n <= len(c.buf) {
		body = c.buf[end+len(endOfHeader) : n]
	}
	return body, nil
}

func lengthOf(header []byte) (int, error) {
	for i := 0; i+len(contentLength) < len(header); i++ {
		if header[i] != '\r' || !bytes.EqualFold(header[i:i+len(contentLength)], contentLength) {
			continue
		}
		digits, _, _ := bytes.Cut(header[i+len(contentLength):], []byte("\r\n"))
		return strconv.Atoi(string(digits))
	}
	return 0, fmt.Errorf("no length in %q", header)
}
