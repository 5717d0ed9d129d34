package replay

import (
	"bytes"
	"cmp"
	"maps"
	"net/http"
	"slices"
	"sync/atomic"
	"time"
)

// Line is a request, as a log has it.
type Line struct {
	Begun    time.Time     // when it came: logs are written when it was answered
	Duration time.Duration // how long the answer took; 0 where the log does not say
	Method   string
	Host     string // "" where the log does not say
	URI      string
	Status   int
	Client   string // address
	Header   http.Header
	User     string // who is logged in, or watches, as the log says

	Type      string // of the answer, as far as the log has it
	Unbounded bool   // the answer said no length
	Text      bool   // the line is none of JSON
	Proto     string // of the request, such as HTTP/2.0, as far as the log has it
	TLS       bool   // it came by TLS, as far as the log has it

	// Set has what Options.Set says of the line, by placeholder.
	Set map[string]string

	File   string
	Number int // of the line in its file, from 1

	ended time.Time // when it was written
	early bool      // it was found before the log was read
}

// Ended is when the answer was over, and the line was written.
func (l *Line) Ended() time.Time { return l.ended }

// written says when the line was written. A time of whole seconds is not made more exact
// by a duration that is: the first segment would come before its manifest.
func (l *Line) written(at stamp) {
	took := l.Duration
	if at.whole {
		took = took.Truncate(time.Second)
	}
	l.ended, l.Begun = at.Time, at.Add(-took)
}

// Lasts reports whether the answer took so long that signs of life came of it meanwhile.
func (l *Line) Lasts() bool { return l.Duration > goesOn }

// Format is how lines are read, beyond what every log has.
type Format struct {
	// Fields says where a line has what it does not have by its format: by a name (time,
	// duration, method, host, uri, status, client_ip, user, user_agent, or header.Name),
	// the position of a field in a line of text, from 1, or the path of one in JSON,
	// such as request>headers>X-User-Id.
	Fields map[string]string
	// Set says which fields have the values of placeholders: names of Fields, or paths
	// in JSON.
	Set map[string]string

	seen *seen // nil where lines are read one by one
}

// seen is what has been found out from lines so far.
type seen struct {
	nanoseconds atomic.Bool             // whole durations are in them
	fields      map[string]*atomic.Bool // whether a line had what Fields and Set name, by what they name
}

// of is the format of one log among others: each has durations of its own.
func (f *Format) of() *Format {
	return &Format{Fields: f.Fields, Set: f.Set, seen: &seen{fields: f.seen.fields}}
}

// watch begins to find that out.
func (f *Format) watch() {
	f.seen = &seen{fields: make(map[string]*atomic.Bool)}
	for _, where := range f.Fields {
		f.seen.fields[where] = new(atomic.Bool)
	}
	for _, name := range f.Set {
		f.seen.fields[cmp.Or(f.Fields[name], name)] = new(atomic.Bool)
	}
}

// missed are the fields that no line had.
func (f *Format) missed() (names []string) {
	for _, where := range slices.Sorted(maps.Keys(f.seen.fields)) {
		if !f.seen.fields[where].Load() {
			names = append(names, where)
		}
	}
	return names
}

// Parse reads a line of Caddy's JSON access log, or of nginx' combined format. It is
// not ok where the line is of something else than a request. The error is for people.
func (f *Format) Parse(text []byte) (l Line, ok bool, err error) {
	text = bytes.TrimPrefix(text, []byte("\ufeff")) // a byte order mark
	if len(text) > 0 && text[0] == '{' {
		return f.parseJSON(text)
	}
	if i := indexTabBrace(text); i > 0 { // Caddy's console format
		return f.parseJSON(text[i:])
	}
	return f.parseText(text)
}
