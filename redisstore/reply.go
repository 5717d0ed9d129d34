package redisstore

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/streamguard/streamguard/guard"
)

var errReply = errors.New("unexpected answer from the script")

// reply is what acquire and refresh answer, whose headers say more.
type reply struct {
	outcome  guard.Outcome
	now      time.Time
	held     int
	guards   []guard.Guard // the one that serves the claim, or those in its way
	also     bool          // that one had been doubted, or is refused lately
	freeIn   time.Duration
	rule     int // that refuses, the first is 1
	blocking int
	replaced []guard.ID
	doubted  []guard.ID
	taken    int // of replaced
}

// readReply reads {outcome, now, held, records, also, free_in, rule, blocking,
// replaced, doubted, taken}, of which only the first four are always there.
func readReply(answer any, user string) (r reply, err error) {
	fields, ok := answer.([]any)
	if !ok || len(fields) < 4 {
		return r, errReply
	}
	var numbers [11]int64
	var texts [10]string
	for i, field := range fields[:min(len(fields), len(numbers))] {
		if i == 3 || i == 8 || i == 9 {
			texts[i], ok = field.(string)
		} else {
			numbers[i], ok = field.(int64)
		}
		if !ok {
			return r, errReply
		}
	}
	r.outcome, r.now, r.held = guard.Outcome(numbers[0]), moment(numbers[1]), int(numbers[2])
	if r.outcome < guard.Admitted || r.outcome > guard.Doubted || r.outcome == guard.Known || int64(r.outcome) != numbers[0] || r.held < 0 {
		return r, errReply
	}
	l, err := parseRecords(numbers[1], texts[3], user)
	if err != nil {
		return r, err
	}
	r.guards, r.also = l.guards, numbers[4] == 1
	r.freeIn, r.rule, r.blocking = time.Duration(numbers[5])*time.Millisecond, int(numbers[6]), int(numbers[7])
	if r.replaced, err = readIDs(texts[8]); err != nil {
		return r, err
	}
	if r.taken = int(numbers[10]); r.taken < 0 || r.taken > len(r.replaced) {
		return r, errReply
	}
	r.doubted, err = readIDs(texts[9])
	return r, err
}

func readIDs(text string) (ids []guard.ID, err error) {
	for ; len(text) >= len(guard.ID{}); text = text[len(guard.ID{}):] {
		var id guard.ID
		copy(id[:], text)
		ids = append(ids, id)
	}
	if text != "" {
		return nil, errReply
	}
	return ids, nil
}

// verdict is what the reply says of a claim by a policy, or of a refresh by none.
func (r *reply) verdict(p *guard.Policy) (v guard.Verdict, err error) {
	v = guard.Verdict{Outcome: r.outcome, Held: r.held, Replaced: r.replaced, Taken: r.taken, Doubted: r.doubted}
	switch r.outcome {
	case guard.Admitted, guard.Refreshed:
		if len(r.guards) != 1 {
			return v, errReply
		}
		v.Guard, v.Answered = r.guards[0], r.also
		if p != nil {
			v.FreeIn = p.SlotEnds(&v.Guard).Sub(r.now)
		}
	case guard.Rejected, guard.Doubted:
		var rules []guard.Rule
		if p != nil {
			rules = p.AllRules()
		}
		if r.rule < 1 || r.rule > len(rules) {
			return v, errReply
		}
		v.Rule, v.Blocking, v.InTheWay, v.FreeIn, v.Lately = rules[r.rule-1], r.blocking, r.guards, r.freeIn, r.also
	case guard.Revoked, guard.Replaced:
		v.FreeIn = r.freeIn
	}
	return v, nil
}

// closed is the flag of a guard whose client has closed its connections.
const closed = 64

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
	records, ok := strings.CutPrefix(value, "2")
	switch {
	case ok:
		return parseRecords(now, records, user)
	case strings.HasPrefix(value, "1"):
		return nil, fmt.Errorf("%w: an earlier checkout's, whose guards have to end first", ErrLayout)
	}
	return nil, ErrLayout
}

func parseRecords(now int64, records, user string) (*ledgerView, error) {
	l := new(ledgerView)
	for r := (reader{rest: records}); len(r.rest) > 0; {
		kind := r.take(1)
		g := guard.Guard{User: user}
		copy(g.ID[:], r.take(16))
		length := int(r.number(2))
		refreshed := min(r.number(6), now)
		g.RemovedAt = moment(refreshed + r.number(4))
		r.take(4) // doubted
		interval := r.number(4)
		g.ExpiresAt = moment(refreshed + interval)
		g.Closed = r.number(2)&closed != 0 && interval == 0
		g.Lapsed = !g.ExpiresAt.After(moment(now))
		stream, device, labels := int(r.number(1)), int(r.number(1)), int(r.number(2))
		g.CreatedAt = moment(min(r.number(6), now))
		r.take(2) // returns, node
		g.Client = guard.Client(r.number(4))
		names := reader{rest: r.take(length)}
		g.Stream, g.Device, g.Labels = names.take(stream), names.take(device), guard.Labels(names.take(labels))
		if r.short || names.short {
			return nil, errReply
		}
		if !g.RemovedAt.After(moment(now)) {
			continue
		}
		switch kind { // others are a later version's
		case "G":
			l.guards = append(l.guards, g)
			l.records++
		case "R", "P", "L", "B":
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
