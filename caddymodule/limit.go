package caddymodule

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/streamguard/streamguard/guard"
)

// Limit is how many guards a user may hold, or how many that agree in one
// thing. All limits must allow a playback; the refusal says which did not.
type Limit struct {
	// 0 to 1000, `unlimited`, or a placeholder that gives one of these; what is
	// above 1000 is 1000. Unlimited guards are listed and never refused, and
	// beyond 1000 they are not counted.
	Limit Number `json:"limit"`

	// What serves where the placeholder gives neither. Default 3.
	Or Number `json:"or,omitempty"`

	// What the guards that count have in common: `stream`, `device`, the name of a
	// label, or `client`: the address and the User-Agent that the playback was
	// started with, so that two equal clients behind one address are one. What is
	// not known agrees with nothing. Default: all count.
	Per string `json:"per,omitempty"`

	// The values of Per that the limit is about. Not judged yet: an error.
	Values []string `json:"values,omitempty"`

	// Whose guard a start ends where the limit is reached: the `oldest`, or the
	// oldest of the same `device`. The playback that loses it is refused until it
	// starts anew, from its first URL. Default nobody's: the start is refused.
	Replace string `json:"replace,omitempty"`
}

// Number is a number of guards, `unlimited`, or a placeholder for one. In JSON
// it is a number or a string.
type Number string

const unlimited = "unlimited"

// MarshalJSON writes a number as a number.
func (n Number) MarshalJSON() ([]byte, error) {
	if i, err := strconv.Atoi(string(n)); err == nil {
		return json.Marshal(i)
	}
	return json.Marshal(string(n))
}

// UnmarshalJSON reads a number or a string.
func (n *Number) UnmarshalJSON(b []byte) error {
	switch first := b[0]; {
	case first == '"':
		return json.Unmarshal(b, (*string)(n))
	case first == '-' || first >= '0' && first <= '9':
		*n = Number(b)
	case string(b) != "null":
		return fmt.Errorf("limit: %s is neither a number nor a placeholder", b)
	}
	return nil
}

// parse reads what is no placeholder, as it is configured.
func (n Number) parse() (int, error) {
	if n == unlimited {
		return guard.Unlimited, nil
	}
	i, err := strconv.Atoi(string(n))
	if err != nil || i < 0 || i > guard.MaxLimit || strconv.Itoa(i) != string(n) {
		return 0, fmt.Errorf("%q is not a whole number from 0 to %d, unlimited or a placeholder", string(n), guard.MaxLimit)
	}
	return i, nil
}

// planned reads what a placeholder gave for a plan.
func planned(s string) (int, bool) {
	if s == unlimited {
		return guard.Unlimited, true
	}
	i, err := strconv.Atoi(s)
	if errors.Is(err, strconv.ErrRange) { // of a number that is too large Atoi gives the largest
		err = nil
	}
	return min(i, guard.MaxLimit), err == nil && i >= 0
}

// unmarshalLimit reads what stands behind limit:
//
//	<n>|unlimited|<placeholder> [or <n>|unlimited] [per <what> [<value>...]] [replace [device]]
func (h *Handler) unmarshalLimit(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	next := func() (word string) {
		if len(args) > 0 {
			word, args = args[0], args[1:]
		}
		return word
	}
	is := func(word string) bool { return len(args) > 0 && args[0] == word }

	l := Limit{Limit: Number(next())}
	if l.Limit == "" {
		return d.Err("limit: takes a number, unlimited or a placeholder")
	}
	if is("or") {
		next()
		if l.Or = Number(next()); l.Or == "" {
			return d.Errf("limit %s or: takes a number, or unlimited", l.Limit)
		}
	}
	if is("per") {
		next()
		if l.Per = next(); l.Per == "" {
			return d.Errf("limit %s per: takes stream, device, client or a label", l.Limit)
		}
		for len(args) > 0 && !is("replace") {
			l.Values = append(l.Values, next())
		}
	}
	if is("replace") {
		next()
		l.Replace = "oldest"
		if is("device") {
			l.Replace = next()
		}
	}
	if len(args) > 0 {
		return d.Errf("limit %s: %q is not understood; the order is <n> [or <n>] [per <what>] [replace [device]]", l.Limit, args[0])
	}
	h.Limits = append(h.Limits, l)
	return nil
}

func (h *Handler) checkLimits() error {
	given := make(map[string]bool)
	for _, l := range h.Limits {
		if l.Limit == "" {
			return fmt.Errorf("a limit without a number")
		}
		if !hasPlaceholder(string(l.Limit)) {
			if _, err := l.Limit.parse(); err != nil {
				return err
			}
			if l.Or != "" {
				return fmt.Errorf("%s or %s: or is for a placeholder that may give no number", l.Limit, l.Or)
			}
		} else if err := checkPlaceholders(string(l.Limit)); err != nil {
			return err
		}
		if l.Or != "" {
			if _, err := l.Or.parse(); err != nil {
				return fmt.Errorf("or %w", err)
			}
		}
		_, isLabel := h.Labels[l.Per]
		switch {
		case l.Per != "" && l.Per != "stream" && l.Per != "device" && l.Per != "client" && !isLabel:
			return fmt.Errorf("per %q is not stream, device, client or a label", l.Per)
		case slices.Contains(l.Values, "or"):
			return fmt.Errorf("per %s: or comes before per, as in limit {plan} or 1 per %s", l.Per, l.Per)
		case l.Per == "" && len(l.Values) > 0:
			return fmt.Errorf("the values %q need a per", l.Values)
		case len(l.Values) > 0:
			return fmt.Errorf("per %s %s: single values are not judged yet; write one line per %s, or a map in front that gives the number", l.Per, l.Values[0], l.Per)
		case l.Per == "device" && h.Device == "":
			return fmt.Errorf("per device needs the device option")
		case l.Replace == "device" && h.Device == "":
			return fmt.Errorf("replace device needs the device option")
		case l.Replace == "device" && l.Per == "device":
			return fmt.Errorf("per device replace device says it twice: write per device replace")
		case l.Replace != "" && l.Replace != "oldest" && l.Replace != "device":
			return fmt.Errorf("replace: %q is not one of oldest, device", l.Replace)
		case given[l.Per] && l.Per == "":
			return fmt.Errorf("is given twice: a further limit is per stream, per device, per client or per a label")
		case given[l.Per]:
			return fmt.Errorf("per %s is given twice", l.Per)
		}
		given[l.Per] = true
	}
	return nil
}

// rule is a limit as a request is judged by it.
type rule struct {
	guard.Rule        // its Limit is what serves where number gives none
	number     source // nil: Rule.Limit as it is
	name       string // the option with its placeholder
}

// newRules reads limits. First come those that replace: what they make room for,
// others need not refuse.
func newRules(limits []Limit) (rules []rule) {
	for _, l := range limits {
		r := rule{Rule: guard.Rule{Per: l.Per, Limit: guard.DefaultLimit}}
		switch l.Replace {
		case "oldest":
			r.AtLimit = guard.ReplaceOldest
		case "device":
			r.AtLimit = guard.ReplaceDevice
		}
		serves := l.Limit
		if hasPlaceholder(string(l.Limit)) {
			r.number, r.name, serves = newSource(string(l.Limit)), string(l.Limit), l.Or
		}
		if n, err := serves.parse(); err == nil {
			r.Limit = n
		}
		rules = append(rules, r)
	}
	slices.SortStableFunc(rules, func(a, b rule) int {
		switch replaces := a.AtLimit != guard.Reject; {
		case replaces == (b.AtLimit != guard.Reject):
			return 0
		case replaces:
			return -1
		}
		return 1
	})
	return rules
}
