package replay

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"time"
)

const (
	maxLine    = 1 << 20   // bytes; what is longer is no line of a log
	batchBytes = 128 << 10 // parsed at once
)

// source is a log that is read.
type source struct {
	name   string
	again  bool // it can be read a second time
	format *Format
	file   *os.File
	size   int64 // 0 where it is not known
	passed atomic.Int64
}

// openSoon is open, and gives up when ctx is over: nobody may be writing to a pipe.
func openSoon(ctx context.Context, name string) (*source, error) {
	type result struct {
		*source
		error
	}
	opened := make(chan result, 1)
	go func() {
		s, err := open(name)
		opened <- result{s, err}
	}()
	select {
	case r := <-opened:
		return r.source, r.error
	case <-ctx.Done():
		return nil, fmt.Errorf("%s: nobody writes to it", name)
	}
}

// open opens a log: "-" is standard input. One whose name ends in .gz, or that begins
// as such, is unpacked.
func open(name string) (*source, error) {
	if name == "-" {
		return &source{name: "standard input", file: os.Stdin}, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	s := &source{name: name, file: f}
	if info, err := f.Stat(); err == nil {
		if info.IsDir() {
			f.Close()
			return nil, fmt.Errorf("%s is a directory", name)
		}
		s.again = info.Mode().IsRegular()
		s.size = info.Size()
	}
	return s, nil
}

// Read counts what was read, for the progress.
func (s *source) Read(b []byte) (int, error) {
	n, err := s.file.Read(b)
	s.passed.Add(int64(n))
	return n, err
}

// lines begins to read the log from where the file is.
func (s *source) lines() (*bufio.Reader, error) {
	plain := bufio.NewReaderSize(s, 1<<18)
	head, err := plain.Peek(2)
	if len(head) < 2 || head[0] != 0x1f || head[1] != 0x8b {
		if strings.HasSuffix(s.name, ".gz") && err == nil {
			return nil, fmt.Errorf("%s is not packed by gzip", s.name)
		}
		return plain, nil
	}
	unpacked, err := gzip.NewReader(plain)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	return bufio.NewReaderSize(unpacked, 1<<18), nil
}

// batch is a piece of a log.
type batch struct {
	text   []byte
	first  int // number of its first line
	long   int // of the line behind it that is too long, or 0
	err    error
	parsed chan []parsed
}

// parsed is what became of a line.
type parsed struct {
	Line
	ok     bool
	err    error
	begins string // of one that cannot be read
}

// appendLine appends a line, with what ends it, to a text. One that is too long is not
// appended.
func appendLine(text []byte, in *bufio.Reader) (_ []byte, long bool, err error) {
	start := len(text)
	piece, err := in.ReadSlice('\n')
	text = append(text, piece...)
	for errors.Is(err, bufio.ErrBufferFull) {
		piece, err = in.ReadSlice('\n')
		if len(text)-start <= maxLine {
			text = append(text, piece...)
		}
	}
	if len(text)-start > maxLine {
		return text[:start], true, err
	}
	return text, false, err
}

// batches cuts the log into pieces of whole lines.
func (s *source) batches(ctx context.Context, yield func(*batch) bool) {
	in, err := s.lines()
	if err != nil {
		yield(&batch{err: err})
		return
	}
	n := 1
	for {
		b := &batch{first: n, text: make([]byte, 0, batchBytes+4096)}
		// What has come goes on, rather than wait for more, which may take long in a pipe.
		for len(b.text) < batchBytes && err == nil && b.long == 0 && (len(b.text) == 0 || in.Buffered() > 0) {
			var long bool
			start := len(b.text)
			if b.text, long, err = appendLine(b.text, in); long {
				b.long = n
			}
			if len(b.text) > start || long {
				n++
			}
		}
		if err != nil && !errors.Is(err, io.EOF) {
			b.err = fmt.Errorf("%s: %w", s.name, err)
		}
		if !yield(b) || err != nil || ctx.Err() != nil {
			return
		}
	}
}

// parse parses a piece.
func (f *Format) parse(b *batch, name string) {
	lines := make([]parsed, 0, bytes.Count(b.text, []byte("\n"))+1)
	n := b.first
	for rest := b.text; len(rest) > 0; n++ {
		var line []byte
		line, rest, _ = bytes.Cut(rest, []byte("\n"))
		line = bytes.TrimSuffix(line, []byte("\r"))
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		var p parsed
		p.Line, p.ok, p.err = f.Parse(line)
		if p.err != nil {
			p.begins = string(line[:min(len(line), 100)])
		}
		p.File, p.Number = name, n
		lines = append(lines, p)
	}
	if b.long > 0 {
		lines = append(lines, parsed{Line: Line{File: name, Number: b.long}, err: fmt.Errorf("it is longer than %d bytes", maxLine)})
	}
	b.parsed <- lines
}

// reader gives the lines of a log one after the other, parsed by several threads.
type reader struct {
	source *source
	pieces chan *batch
	now    []parsed
	err    error
}

func (s *source) read(ctx context.Context) *reader {
	r := &reader{source: s, pieces: make(chan *batch, 2*runtime.GOMAXPROCS(0))}
	work := make(chan *batch)
	for range runtime.GOMAXPROCS(0) {
		go func() {
			for b := range work {
				s.format.parse(b, s.name)
			}
		}()
	}
	go func() {
		defer close(r.pieces)
		defer close(work)
		for b := range func(yield func(*batch) bool) { s.batches(ctx, yield) } {
			if b.first == 1 {
				s.format.look(b.text)
			}
			b.parsed = make(chan []parsed, 1)
			select {
			case r.pieces <- b:
				work <- b
			case <-ctx.Done():
				return
			}
		}
	}()
	return r
}

// next is the next line; nil at the end, or where the log cannot be read further, or
// when ctx is over: standard input may have nothing to read for a long time.
func (r *reader) next(ctx context.Context) *parsed {
	for len(r.now) == 0 {
		var b *batch
		var more bool
		select {
		case b, more = <-r.pieces:
		case <-ctx.Done():
		}
		if !more {
			return nil
		}
		r.now = <-b.parsed
		if b.err != nil {
			r.err = b.err
		}
	}
	p := &r.now[0]
	r.now = r.now[1:]
	return p
}

// lasting finds the answers of a log that can be read again which took longer than a
// time: they are written long after they began.
func (s *source) lasting(ctx context.Context, longer time.Duration) (found []Line, err error) {
	f := s.format
	defer func() {
		s.passed.Store(0)
		_, rewound := s.file.Seek(0, io.SeekStart)
		err = errors.Join(err, rewound)
	}()
	in, err := s.lines()
	if err != nil {
		return nil, err
	}
	beginning, _ := in.Peek(batchBytes)
	f.look(beginning)
	line := make([]byte, 0, 4096)
	for n := 1; ctx.Err() == nil; n++ {
		var err error
		line, _, err = appendLine(line[:0], in)
		if f.mayLast(line, longer) {
			if l, ok, err := f.Parse(bytes.TrimRight(line, "\r\n")); ok && err == nil && l.Duration > longer {
				l.File, l.Number = s.name, n
				found = append(found, l)
			}
		}
		if err != nil { // what cannot be read is said when the log is read as a whole
			break
		}
	}
	return found, nil
}

// mayLast reports whether a line may be of an answer that took longer, at a glance.
func (f *Format) mayLast(line []byte, longer time.Duration) bool {
	if f.Fields["duration"] != "" {
		return true
	}
	const key = `"duration":`
	i := bytes.Index(line, []byte(key))
	if i < 0 {
		return false
	}
	number := line[i+len(key):]
	if end := bytes.IndexAny(number, ",}"); end >= 0 {
		number = number[:end]
	}
	d, err := f.duration(plain(bytes.TrimSpace(number)))
	return err == nil && d > longer
}
