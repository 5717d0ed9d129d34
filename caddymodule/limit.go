package caddymodule

import (
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/streamguard/streamguard/guard"
)

// Limit is a number of guards or a placeholder for one. In JSON it is a number
// or a string.
type Limit string

// MarshalJSON writes a number as a number.
func (l Limit) MarshalJSON() ([]byte, error) {
	if n, err := strconv.Atoi(string(l)); err == nil {
		return json.Marshal(n)
	}
	return json.Marshal(string(l))
}

// UnmarshalJSON reads a number or a string.
func (l *Limit) UnmarshalJSON(b []byte) error {
	switch first := b[0]; {
	case first == '"':
		return json.Unmarshal(b, (*string)(l))
	case first == '-' || first >= '0' && first <= '9':
		*l = Limit(b)
	case string(b) != "null":
		return fmt.Errorf("limit: %s is neither a number nor a placeholder", b)
	}
	return nil
}

func (l Limit) check() error {
	if hasPlaceholder(string(l)) {
		return nil
	}
	_, err := parseLimit(string(l))
	return err
}

func parseLimit(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 || n > guard.MaxLimit {
		return 0, fmt.Errorf("%q is not a whole number from 0 to %d", s, guard.MaxLimit)
	}
	return n, nil
}
