// Package replay has an access log go through a gate: each line is the request that it
// was once, at the time at which it came.
package replay

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/streamguard/streamguard/audience"
	"github.com/streamguard/streamguard/playback"
)

// Site is where the requests go.
type Site interface {
	// Begin is called once, at the moment of the first request.
	Begin()
	// Request is a request that came at this moment. The answer to it lasts, as the line
	// says; while it does, Goes is called.
	Request(l *Line) Became
	// Goes says that the answer to a request is still being sent.
	Goes(l *Line)
	// Ended says that it has been sent, a while ago.
	Ended(l *Line)
	// Sweep forgets what is over.
	Sweep()
}

// Became is what became of a line.
type Became uint8

const (
	Judged Became = iota // it is a request for a manifest or for media
	Other                // it is another one
	Nobody               // it is of nobody
)

// Options say what is replayed.
type Options struct {
	Format   Format
	From, To time.Time         // zero: all
	Hosts    func(string) bool // whose requests; nil: everybody's
	Progress func(Progress)    // hears of it now and then; nil: nobody does
}

// Progress is how far a log has been read.
type Progress struct {
	Lines      int64
	Bytes, All int64 // All is 0 where it is not known
	At         time.Time
}

// Clock is the time of a replay.
type Clock struct{ now time.Time }

// Now is the moment of the request at hand.
func (c *Clock) Now() time.Time { return c.now }

const (
	outOfOrder  = 30 * time.Second    // how much later than begun a line may be written without being looked for
	goesOn      = 15 * time.Second    // how often an answer is a sign of life
	afterEnd    = 5 * time.Second     // after an answer's end its playback is looked at
	sweepEvery  = 5 * time.Minute     // of the log's time
	mostWaiting = 1 << 16             // lines that are read and wait for their time
	tellEvery   = 1 << 12             // lines
	pause       = 12 * 24 * time.Hour // the most that passes at once
)

// event is what happens at a moment: a request, or that its answer goes on or has ended.
type event struct {
	at   time.Time
	line *Line
	kind uint8
	last bool  // of one moment, it is behind those that are not
	n    int64 // the order in which events of one moment came
}

const (
	begins uint8 = iota
	goes
	ended
)

// events are those to come, the next one first.
type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	if order := e[i].at.Compare(e[j].at); order != 0 {
		return order < 0
	}
	if e[i].last != e[j].last {
		return e[j].last
	}
	return e[i].n < e[j].n
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := len(*e) - 1
	x := (*e)[last]
	(*e)[last] = event{}
	*e = (*e)[:last]
	return x
}

// run is a replay on its way.
type run struct {
	*Options
	site    Site
	clock   *Clock
	lines   audience.Lines
	coming  events
	n       int64
	several bool              // there are several logs
	waiting int               // lines that have been read and not replayed, other than those found before
	second  time.Time         // of the last line that was read,
	written map[copied]string // and what was written in it, where
	until   time.Time         // up to here all that is to come is known
	swept   time.Time
	found   map[place]bool // lines of answers that last long, which are known already
}

// place is where a line is: the number of its log, and its own.
type place struct{ log, line int }

// Run replays logs, which may be parts of one or those of several nodes, and says what
// became of their lines. When ctx is over it stops, and says what was read until then;
// so it does with the error of a log that cannot be read further.
func Run(ctx context.Context, logs []string, site Site, clock *Clock, o *Options) (*audience.Lines, error) {
	r := &run{Options: o, site: site, clock: clock, several: len(logs) > 1, found: make(map[place]bool)}
	r.Format.watch()
	again := true
	sources := make([]*source, len(logs))
	for i, name := range logs {
		s, err := openSoon(ctx, name)
		if err != nil {
			return nil, err
		}
		defer s.file.Close()
		s.format = o.Format.of()
		sources[i] = s
		again = again && s.again
	}
	if again {
		for n, s := range sources {
			long, err := s.lasting(ctx, outOfOrder)
			if err != nil {
				return nil, err
			}
			for i := range long {
				if l := &long[i]; r.within(l) && r.wanted(l) {
					l.early, r.found[place{n, l.Number}] = true, true
					r.add(l)
				}
			}
		}
	}
	err := r.read(ctx, sources)
	r.lines.Exhausted = err == nil && ctx.Err() == nil
	if r.lines.Exhausted {
		r.until = r.until.Add(100 * 365 * 24 * time.Hour)
	}
	r.happen()
	// What was found early may have happened before its line was come to.
	r.lines.Read = max(r.lines.Read, r.lines.Judged+r.lines.Other+r.lines.Elsewhere+r.lines.Outside+r.lines.Broken)
	if missed := r.Format.missed(); len(missed) > 0 && r.lines.Judged > 0 {
		err = errors.Join(err, fmt.Errorf("no line has anything in the field %s (in JSON, fields are known by their keys; in text, by their positions from 1)", strings.Join(missed, ", ")))
	}
	return &r.lines, err
}

// read reads all logs, what was written first before the rest.
func (r *run) read(ctx context.Context, sources []*source) (failed error) {
	readers := make([]*reader, len(sources))
	heads := make([]*parsed, len(sources))
	for i, s := range sources {
		readers[i] = s.read(ctx)
		heads[i] = r.nextOf(ctx, readers[i])
	}
	for ctx.Err() == nil {
		first := -1
		for i, head := range heads {
			if head != nil && (first < 0 || head.Ended().Before(heads[first].Ended())) {
				first = i
			}
		}
		if first < 0 {
			break
		}
		l := &heads[first].Line
		if r.several && r.isCopy(l) {
			r.lines.Twice++
		}
		if end := l.Ended(); end.After(r.until.Add(outOfOrder)) || r.until.IsZero() {
			r.until = end.Add(-outOfOrder)
		}
		known := l.Duration > outOfOrder && r.found[place{first, l.Number}]
		switch {
		case !r.within(l):
			r.lines.Outside++
		case !r.wanted(l):
			r.lines.Elsewhere++
		case !known:
			r.add(l)
			r.waiting++
		}
		if r.waiting > mostWaiting && r.coming[0].at.After(r.until) { // a log of very many requests a second
			r.until = r.coming[0].at
		}
		r.happen()
		heads[first] = r.nextOf(ctx, readers[first])
		if r.Progress != nil && r.lines.Read%tellEvery == 0 {
			r.tell(sources)
		}
	}
	for _, reader := range readers {
		failed = errors.Join(failed, reader.err)
	}
	return failed
}

// copied is what two lines have in common where one is a copy of the other.
type copied struct {
	begun             time.Time
	took              time.Duration
	client, host, uri string
	status            int
}

// isCopy reports whether another log has a line, too.
func (r *run) isCopy(l *Line) bool {
	if second := l.Ended().Truncate(time.Second); !second.Equal(r.second) {
		r.second, r.written = second, make(map[copied]string)
	}
	c := copied{l.Begun, l.Duration, l.Client, l.Host, l.URI, l.Status}
	file, there := r.written[c]
	if !there {
		r.written[c] = l.File
	}
	return there && file != l.File
}

// nextOf is the next line of a log that is a request.
func (r *run) nextOf(ctx context.Context, from *reader) *parsed {
	for {
		p := from.next(ctx)
		if p == nil {
			return nil
		}
		r.lines.Read++
		switch {
		case p.err != nil:
			if r.lines.Broken++; r.lines.BrokenAt == "" {
				r.lines.BrokenAt = fmt.Sprintf("%s, line %d: %v: %q", p.File, p.Number, p.err, p.begins)
			}
		case !p.ok:
			r.lines.Other++
		default:
			return p
		}
	}
}

// within reports whether a line is of the time that is replayed. An answer that was being
// sent when that began, and goes on for long, is: it begins then.
func (r *run) within(l *Line) bool {
	if l.Begun.Before(r.From) && l.Ended().After(r.From) && l.Lasts() {
		l.Begun, l.Duration = r.From, l.Ended().Sub(r.From)
	}
	return (r.From.IsZero() || !l.Begun.Before(r.From)) && (r.To.IsZero() || l.Begun.Before(r.To))
}

// wanted reports whether a line is of a host that is replayed.
func (r *run) wanted(l *Line) bool { return r.Hosts == nil || l.Host == "" || r.Hosts(l.Host) }

// add has a line wait for its time. Of lines of one moment the first is that which was
// written first; where that is not known, since they are of several logs, manifests
// come before media.
func (r *run) add(l *Line) {
	path, _, _ := strings.Cut(l.URI, "?")
	r.push(event{at: l.Begun, line: l, last: r.several && kinds.Of(path) != playback.Manifest})
}

var kinds, _ = playback.NewKinds(nil)

func (r *run) push(e event) {
	e.n = r.n
	r.n++
	heap.Push(&r.coming, e)
}

// happen has all happen that is certain to come next.
func (r *run) happen() {
	for len(r.coming) > 0 && !r.coming[0].at.After(r.until) {
		e := heap.Pop(&r.coming).(event)
		if e.at.Before(r.clock.now) {
			if e.kind == begins && r.clock.now.Sub(e.at) > outOfOrder {
				r.lines.Late++
			}
		} else {
			r.passTo(e.at)
		}
		if r.clock.now.Sub(r.swept) > sweepEvery {
			r.swept = r.clock.now
			r.site.Sweep()
		}
		r.do(e)
	}
}

// passTo lets time pass. A lease is not to grow older than it can tell.
func (r *run) passTo(at time.Time) {
	if r.clock.now.IsZero() {
		r.clock.now, r.swept = at, at
		r.site.Begin()
		return
	}
	for at.Sub(r.clock.now) > pause {
		r.clock.now = r.clock.now.Add(pause)
		r.site.Sweep()
	}
	r.clock.now = at
}

func (r *run) do(e event) {
	switch e.kind {
	case begins:
		if !e.line.early {
			r.waiting--
		}
		switch r.site.Request(e.line) {
		case Judged:
			r.lines.Judged++
		case Nobody:
			r.lines.Nobody++
			r.lines.Judged++
			return
		default:
			r.lines.Other++
			return
		}
	case goes:
		r.site.Goes(e.line)
	case ended:
		r.site.Ended(e.line)
		return
	}
	switch end := e.line.Ended(); {
	case !e.line.Lasts():
	case e.at.Add(goesOn).Before(end):
		r.push(event{at: e.at.Add(goesOn), line: e.line, kind: goes})
	default:
		r.push(event{at: end.Add(afterEnd), line: e.line, kind: ended})
	}
}

func (r *run) tell(sources []*source) {
	p := Progress{Lines: r.lines.Read, At: r.clock.now}
	for _, s := range sources {
		p.Bytes += s.passed.Load()
		p.All += s.size
	}
	if slices.ContainsFunc(sources, func(s *source) bool { return !s.again }) {
		p.All = 0
	}
	r.Progress(p)
}
