package replay

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The positions of what every line of nginx' combined format has, from 1.
const (
	clientAt  = 1
	userAt    = 3
	timeAt    = 4
	requestAt = 5
	statusAt  = 6
	refererAt = 8
	agentAt   = 9
	least     = statusAt
)

// parseText reads
//
//	$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent"
//
// and whatever fields follow.
func (f *Format) parseText(b []byte) (l Line, ok bool, err error) {
	all, first := joinUser(fields(string(b))), 0
	if len(all) > clientAt && net.ParseIP(all[0]) == nil && net.ParseIP(all[1]) != nil {
		first = 1 // with the host in front of it all
	}
	field := func(n int) string {
		if n < 1 || n > len(all) || all[n-1] == "-" {
			return ""
		}
		return all[n-1]
	}
	usual := func(n int) string { return field(first + n) }
	if len(all) < first+least {
		return l, false, fmt.Errorf("it has %d fields, where the combined format has %d", len(all), agentAt)
	}
	written, err := newStamp(usual(timeAt))
	if err != nil && f.Fields["time"] == "" {
		return l, false, err
	}
	request := strings.Fields(usual(requestAt))
	if len(request) < 2 && (f.Fields["uri"] == "" || f.Fields["method"] == "") {
		return l, false, nil // nginx logs what was no request, too
	}
	l = Line{Text: true, Client: usual(clientAt), User: usual(userAt), Header: make(http.Header)}
	if first > 0 {
		l.Host = all[0]
	}
	if len(request) >= 2 {
		l.Method, l.URI = request[0], request[1]
	}
	if l.Status, err = strconv.Atoi(usual(statusAt)); err != nil && f.Fields["status"] == "" {
		return l, false, fmt.Errorf("status %q is no number", usual(statusAt))
	}
	if referer := usual(refererAt); referer != "" {
		l.Header.Set("Referer", referer)
	}
	if agent := usual(agentAt); agent != "" {
		l.Header.Set("User-Agent", agent)
	}
	err = f.fill(&l, &written, func(position string) (string, bool) {
		n, err := strconv.Atoi(position)
		if err != nil && (position == "user" || position == "user_id") {
			n = first + userAt
		}
		value := field(n)
		return value, value != ""
	})
	if err != nil {
		return l, false, err
	}
	if written.IsZero() || time.Unix(0, 0).After(written.Time) {
		return l, false, errors.New("it does not say when")
	}
	l.written(written)
	return l, true, nil
}

// joinUser makes one field of a user's name with spaces, which nginx writes as it is.
func joinUser(all []string) []string {
	for n := timeAt; n < min(len(all), timeAt+10); n++ {
		if _, err := time.Parse(commonLog, all[n-1]); err == nil {
			if n > timeAt && all[userAt-2] == "-" && all[userAt-1] != "-" { // the name of who asks is never known
				all = slices.Replace(all, userAt-1, n-1, strings.Join(all[userAt-1:n-1], " "))
			}
			break
		}
	}
	return all
}

// commonLog is how nginx' combined format writes a moment.
const commonLog = "02/Jan/2006:15:04:05 -0700"

// fields are those of a line of text: parted by spaces, unless these are within quotes
// or brackets.
func fields(s string) (all []string) {
	for s = strings.TrimLeft(s, " \t"); s != ""; s = strings.TrimLeft(s, " \t") {
		var end int
		switch s[0] {
		case '"':
			end = 1
			for end < len(s) && s[end] != '"' {
				if s[end] == '\\' {
					end++
				}
				end++
			}
			end = min(end, len(s))
			all = append(all, unescape(s[1:end]))
			s = s[min(end+1, len(s)):]
			continue
		case '[':
			if end = strings.IndexByte(s, ']'); end > 0 {
				all = append(all, s[1:end])
				s = s[end+1:]
				continue
			}
		}
		if end = strings.IndexAny(s, " \t"); end < 0 {
			end = len(s)
		}
		all = append(all, s[:end])
		s = s[end:]
	}
	return all
}

// unescape undoes what nginx does to a value: \xXX, \" and \\.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		i++
		if s[i] == 'x' && i+2 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				b.WriteByte(byte(n))
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
