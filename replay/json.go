package replay

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/textproto"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// entry is a line of Caddy's access log.
type entry struct {
	TS       stamp    `json:"ts"`
	Duration text     `json:"duration"`
	Status   text     `json:"status"`
	UserID   text     `json:"user_id"`
	Request  *request `json:"request"`
	Answer   *answer  `json:"resp_headers"`
	Gate     struct {
		User text `json:"user"`
	} `json:"stream_guard"`
}

// answer is what is read of the header of an answer.
type answer struct {
	Type   text `json:"Content-Type"`
	Length text `json:"Content-Length"`
}

type request struct {
	RemoteIP string `json:"remote_ip"`
	ClientIP string `json:"client_ip"`
	Method   string `json:"method"`
	Host     string `json:"host"`
	URI      string `json:"uri"`
	Proto    string `json:"proto"`
	TLS      *tls   `json:"tls"`
	Headers  header `json:"headers"`
}

// tls is there where a request came by it.
type tls struct{}

// header is a header as the log has it; a filter may have made one value of many.
type header http.Header

func (h *header) UnmarshalJSON(b []byte) error {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(b, &fields); err != nil {
		return nil // a filter has made something else of it
	}
	*h = make(header, len(fields))
	for name, raw := range fields {
		var values []string
		if json.Unmarshal(raw, &values) != nil {
			var one string
			if json.Unmarshal(raw, &one) != nil {
				continue
			}
			values = []string{one}
		}
		(*h)[textproto.CanonicalMIMEHeaderKey(name)] = values
	}
	return nil
}

// text is a string, or anything else as it is written.
type text string

func (t *text) UnmarshalJSON(b []byte) error {
	*t = text(plain(b))
	return nil
}

func plain(b []byte) string {
	var s string
	switch {
	case len(b) > 0 && (b[0] == '-' || '0' <= b[0] && b[0] <= '9'):
	case json.Unmarshal(b, &s) == nil:
		return s
	case len(b) > 0 && (b[0] == '[' || b[0] == '{'):
		var list []string
		if json.Unmarshal(b, &list) == nil {
			return strings.Join(list, ",")
		}
	}
	return string(b)
}

// stamp is a moment in any format that Caddy has for it.
type stamp struct {
	time.Time
	whole bool // it has no parts of a second
}

func (s *stamp) UnmarshalJSON(b []byte) (err error) {
	*s, err = newStamp(plain(b))
	return err
}

func newStamp(text string) (s stamp, err error) {
	s.Time, err = moment(text)
	_, words := strconv.ParseFloat(text, 64)
	s.whole = words != nil && !strings.Contains(text, ".")
	return s, err
}

// The formats of moments, beside numbers.
var formats = []string{
	time.RFC3339Nano, "2006-01-02T15:04:05.000Z0700", "2006/01/02 15:04:05.000000000", "2006/01/02 15:04:05.000", "2006/01/02 15:04:05",
	commonLog, time.RFC1123, time.RFC1123Z, time.RFC850, time.RFC822, time.RFC822Z,
}

func moment(s string) (time.Time, error) {
	if f, err := strconv.ParseFloat(s, 64); err == nil {
		switch { // seconds, milliseconds, microseconds, or nanoseconds
		case math.IsNaN(f) || f < 0 || f > 9e18:
			return time.Time{}, fmt.Errorf("time %q is out of range", s)
		case f > 1e17:
			return time.Unix(0, int64(f)), nil
		case f > 1e14:
			return time.UnixMicro(int64(f)), nil
		case f > 1e11:
			return time.UnixMicro(int64(f * 1e3)), nil
		}
		return time.UnixMicro(int64(math.Round(f * 1e6))), nil
	}
	for _, format := range formats {
		if t, err := time.Parse(format, s); err == nil {
			if year := t.UTC().Year(); year < 1970 || year > 9999 { // which no report could say in JSON
				return time.Time{}, fmt.Errorf("time %q is out of range", s)
			}
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("time %q is of no known format", s)
}

const (
	longest      = 30 * 24 * time.Hour // more than any answer takes
	wholeSeconds = 24 * 60 * 60        // what is said without parts of a second and is more is in nanoseconds
)

// duration reads how long an answer took: in seconds, in nanoseconds where the log has
// them, or as a text such as 1.5s.
func (f *Format) duration(s string) (time.Duration, error) {
	if s == "-" || s == "" {
		return 0, nil
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil && (float64(n) > longest.Seconds() || f.seen != nil && f.seen.nanoseconds.Load()) {
		return inRange(s, float64(n)/1e9)
	}
	if seconds, err := strconv.ParseFloat(s, 64); err == nil {
		return inRange(s, seconds)
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("duration %q is none", s)
	}
	return inRange(s, d.Seconds())
}

func inRange(s string, seconds float64) (time.Duration, error) {
	if math.IsNaN(seconds) || seconds < 0 || seconds > longest.Seconds() {
		return 0, fmt.Errorf("duration %q is out of range", s)
	}
	return time.Duration(seconds * float64(time.Second)), nil
}

var wholeDuration = regexp.MustCompile(`"duration":\s?([0-9]+)[,}]`)

// look finds out from the beginning of a log whether it has durations in nanoseconds:
// they would be longer than any in seconds.
func (f *Format) look(beginning []byte) {
	for _, m := range wholeDuration.FindAllSubmatch(beginning, -1) {
		n, err := strconv.ParseInt(string(m[1]), 10, 64)
		if err == nil && n > wholeSeconds {
			f.seen.nanoseconds.Store(true)
		}
	}
}

func indexTabBrace(b []byte) int {
	return bytes.Index(b, []byte("\t{")) + 1
}

func (f *Format) parseJSON(b []byte) (l Line, ok bool, err error) {
	var e entry
	if err := json.Unmarshal(b, &e); err != nil {
		if _, typed := errors.AsType[*json.UnmarshalTypeError](err); !typed {
			return l, false, err
		}
	}
	if e.Request != nil {
		duration, err := f.duration(string(e.Duration))
		if err != nil {
			return l, false, err
		}
		status, err := strconv.Atoi(string(e.Status))
		if err != nil && e.Status != "" {
			return l, false, fmt.Errorf("status %q is no number", e.Status)
		}
		l = Line{
			Duration: duration, Method: e.Request.Method, Host: e.Request.Host, URI: e.Request.URI,
			Status: status, Client: e.Request.ClientIP, Header: http.Header(e.Request.Headers),
			User: string(e.Gate.User), Proto: e.Request.Proto, TLS: e.Request.TLS != nil,
		}
		if e.Answer != nil {
			l.Type, l.Unbounded = string(e.Answer.Type), e.Answer.Length == ""
		}
		if l.Client == "" {
			l.Client = e.Request.RemoteIP
		}
		if l.User == "" {
			l.User = string(e.UserID)
		}
	}
	if l.Header == nil {
		l.Header = make(http.Header)
	}
	written := e.TS
	if len(f.Fields)+len(f.Set) > 0 {
		var all map[string]json.RawMessage
		if err := json.Unmarshal(b, &all); err != nil {
			return l, false, err
		}
		if err := f.fill(&l, &written, func(path string) (string, bool) { return at(all, path) }); err != nil {
			return l, false, err
		}
	}
	if method, rest, whole := strings.Cut(l.URI, " "); whole {
		l.Method = method
		l.URI, _, _ = strings.Cut(rest, " ")
	}
	switch {
	case l.URI == "":
		return l, false, nil // another line than of a request
	case written.IsZero():
		return l, false, errors.New("it does not say when (ts)")
	}
	l.written(written)
	return l, true, nil
}

// at is the value at a path of keys, which are parted by > or, where no key has one, by
// a full stop.
func at(all map[string]json.RawMessage, path string) (string, bool) {
	if raw, found := all[path]; found {
		return plain(raw), string(raw) != "null"
	}
	separator := ">"
	if !strings.Contains(path, ">") {
		separator = "."
	}
	key, rest, deeper := strings.Cut(path, separator)
	if !deeper {
		return "", false
	}
	var inner map[string]json.RawMessage
	if json.Unmarshal(all[key], &inner) != nil {
		return "", false
	}
	return at(inner, rest)
}

// fill gives a line what the format says of it beyond its own fields. field is the value
// that the line has in some place.
func (f *Format) fill(l *Line, written *stamp, field func(where string) (value string, found bool)) (err error) {
	found := func(where string) (string, bool) {
		value, found := field(where)
		if f.seen == nil {
			return value, found
		}
		if seen := f.seen.fields[where]; found && !seen.Load() {
			seen.Store(true)
		}
		return value, found
	}
	for name, where := range f.Fields {
		value, found := found(where)
		switch {
		case !found:
		case name == "time":
			*written, err = newStamp(value)
		default:
			err = f.set(l, name, value)
		}
		if err != nil {
			return err
		}
	}
	for placeholder, name := range f.Set {
		if value, found := found(cmp.Or(f.Fields[name], name)); found {
			l.setPlaceholder(placeholder, value)
		}
	}
	return nil
}

// set gives a line what a field of a name has.
func (f *Format) set(l *Line, name, value string) (err error) {
	switch name {
	case "duration":
		if l.Duration, err = f.duration(value); err != nil {
			return err
		}
	case "method":
		l.Method = value
	case "host":
		l.Host = value
	case "uri":
		l.URI = value
	case "status":
		n, err := strconv.Atoi(value)
		if err != nil {
			return fmt.Errorf("status %q is no number", value)
		}
		l.Status = n
	case "client_ip":
		l.Client = value
	case "user":
		if value != "-" {
			l.User = value
		}
	case "user_agent":
		l.Header.Set("User-Agent", value)
	default:
		header, is := strings.CutPrefix(name, "header.")
		if is && value != "-" {
			l.Header.Set(header, value)
		}
	}
	return nil
}

func (l *Line) setPlaceholder(placeholder, value string) {
	if value == "" || value == "-" {
		return
	}
	if l.Set == nil {
		l.Set = make(map[string]string)
	}
	l.Set[placeholder] = value
}

// names are those that Format.Fields may have, beside header.Name.
var names = []string{"time", "duration", "method", "host", "uri", "status", "client_ip", "user", "user_agent"}

// CheckField says what is wrong with a field's name, if anything.
func CheckField(name string) error {
	if header, is := strings.CutPrefix(name, "header."); is && header != "" {
		return nil
	}
	if slices.Contains(names, name) {
		return nil
	}
	return fmt.Errorf("%q is not one of %s, or header.<Name>", name, strings.Join(names, ", "))
}
