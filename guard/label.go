package guard

import (
	"iter"
	"strings"
)

// Labels are names with values, in one string: "\x1fname=value\x1f…\x1f". The
// zero value has none.
type Labels string

const separator = "\x1f"

// With adds a label. The name is of lower-case letters, digits and
// underscores, and not there yet; an empty value adds nothing.
func (l Labels) With(name, value string) Labels {
	if value == "" {
		return l
	}
	value = strings.ReplaceAll(value, separator, "_")
	if l == "" {
		l = separator
	}
	return l + Labels(name+"="+value+separator)
}

// over are these labels and, as far as there is room, those of the others that
// have other names.
func (l Labels) over(others Labels) Labels {
	for name, value := range others.All() {
		if more := l.With(name, value); l.Get(name) == "" && len(more) <= MaxLabels {
			l = more
		}
	}
	return l
}

// Get is the value of a label, "" where it is not there.
func (l Labels) Get(name string) string {
	_, rest, _ := strings.Cut(string(l), separator+name+"=")
	value, _, _ := strings.Cut(rest, separator)
	return value
}

// All iterates over names and values.
func (l Labels) All() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for label := range strings.SplitSeq(strings.Trim(string(l), separator), separator) {
			if name, value, ok := strings.Cut(label, "="); ok && !yield(name, value) {
				return
			}
		}
	}
}
