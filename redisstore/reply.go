package redisstore

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/streamguard/streamguard/guard"
)

var errReply = errors.New("unexpected answer from the script")

// reply is what acquire and refresh answer; refresh leaves the last four out.
type reply struct {
	outcome  guard.Outcome
	held     int
	guards   []guard.Guard // the one that serves the claim, or those in its way
	freeIn   time.Duration
	rule     int // that refuses, the first is 1
	blocking int
	replaced []guard.ID
}

// readReply reads {outcome, now, held, records, free_in, rule, blocking, replaced}.
func readReply(answer any, user string) (r reply, err error) {
	fields, ok := answer.([]any)
	if !ok || len(fields) < 4 {
		return r, errReply
	}
	numbers := make([]int64, 7)
	for i, field := range fields[:min(len(fields), 7)] {
		if i == 3 {
			continue
		}
		if numbers[i], ok = field.(int64); !ok {
			return r, errReply
		}
	}
	records, ok := fields[3].(string)
	r.outcome, r.held = guard.Outcome(numbers[0]), int(numbers[2])
	if known := r.outcome >= guard.Admitted && r.outcome <= guard.Absent || r.outcome == guard.Uncounted; !ok || !known || int64(r.outcome) != numbers[0] || r.held < 0 {
		return r, errReply
	}
	l, err := parseRecords(numbers[1], records, user)
	if err != nil {
		return r, err
	}
	r.guards = l.guards
	r.freeIn, r.rule, r.blocking = time.Duration(numbers[4])*time.Millisecond, int(numbers[5]), int(numbers[6])
	if len(fields) > 7 {
		ids, ok := fields[7].(string)
		if !ok || len(ids)%len(guard.ID{}) != 0 {
			return r, errReply
		}
		for id := range slices.Chunk([]byte(ids), len(guard.ID{})) {
			r.replaced = append(r.replaced, guard.ID(id))
		}
	}
	return r, nil
}

// verdict is what the reply says of a claim, or of a refresh without any rules.
func (r *reply) verdict(rules []guard.Rule) (v guard.Verdict, err error) {
	v = guard.Verdict{Outcome: r.outcome, Held: r.held, Replaced: r.replaced}
	switch r.outcome {
	case guard.Admitted, guard.Refreshed:
		if len(r.guards) != 1 {
			return v, errReply
		}
		v.Guard = r.guards[0]
	case guard.Rejected:
		if r.rule < 1 || r.rule > len(rules) {
			return v, errReply
		}
		v.Rule, v.Blocking, v.InTheWay, v.FreeIn = rules[r.rule-1], r.blocking, r.guards, r.freeIn
	case guard.Revoked:
		v.FreeIn = r.freeIn
	}
	return v, nil
}

// ledgerView is what a value says of a user's ledger.
type ledgerView struct {
	guards  []guard.Guard // oldest first
	records int           // guards and marks
}

// parse reads {now, value}; the value's layout is described in value.lua.
func parse(answer any, user string) (*ledgerView, error) {
	fields, ok := answer.([]any)
	if !ok || len(fields) != 2 {
		return nil, errReply
	}
	now, isNumber := fields[0].(int64)
	value, isString := fields[1].(string)
	if !isNumber || !isString {
		return nil, errReply
	}
	records, ok := strings.CutPrefix(value, "1")
	if !ok {
		return nil, ErrLayout
	}
	return parseRecords(now, records, user)
}

func parseRecords(now int64, records, user string) (*ledgerView, error) {
	l := new(ledgerView)
	for r := (reader{rest: records}); len(r.rest) > 0; {
		kind := r.take(1)
		g := guard.Guard{User: user}
		copy(g.ID[:], r.take(16))
		created, refreshed := min(r.number(6), now), min(r.number(6), now)
		g.CreatedAt, g.ExpiresAt, g.RemovedAt = moment(created), moment(refreshed+r.number(4)), moment(refreshed+r.number(4))
		stream, device, labels := int(r.number(1)), int(r.number(1)), int(r.number(2))
		g.Stream, g.Device, g.Labels = r.take(stream), r.take(device), guard.Labels(r.take(labels))
		if r.short {
			return nil, errReply
		}
		if !g.RemovedAt.After(moment(now)) {
			continue
		}
		switch kind { // others are a later version's
		case "G":
			l.guards = append(l.guards, g)
			l.records++
		case "R", "L", "B", "V":
			l.records++
		}
	}
	return l, nil
}

// reader takes fields off the front of a value. After running short it gives
// zeros.
type reader struct {
	rest  string
	short bool
}

func (r *reader) take(n int) string {
	if n > len(r.rest) {
		r.rest, r.short = "", true
		return strings.Repeat("\x00", n)
	}
	field := r.rest[:n]
	r.rest = r.rest[n:]
	return field
}

// number is an unsigned one, big-endian, of so many bytes.
func (r *reader) number(bytes int) (n int64) {
	for _, b := range []byte(r.take(bytes)) {
		n = n<<8 | int64(b)
	}
	return n
}

func moment(milliseconds int64) time.Time { return time.UnixMilli(milliseconds).UTC() }
