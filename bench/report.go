package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
)

// row is a line of the table.
type row struct {
	what, partner, unit string
	goal                goal
	absolute            bool      // the goal is for ours, not for the ratio
	ours, theirs        []float64 // in unit; theirs is empty where there is no partner
}

// goal is what must be reached by the median.
type goal struct {
	op    string // ≥ ≤ > <, or "" where there is none
	value float64
}

func (g goal) String() string {
	if g.op == "" {
		return "–"
	}
	return fmt.Sprintf("%s %v", g.op, g.value)
}

func (g goal) met(v float64) bool {
	return map[string]bool{"": true, "≥": v >= g.value, "≤": v <= g.value, ">": v > g.value, "<": v < g.value}[g.op]
}

func (r *row) pair(ours, theirs float64) {
	r.ours, r.theirs = append(r.ours, ours), append(r.theirs, theirs)
}

func (r *row) value(ours float64) { r.ours = append(r.ours, ours) }

// figures are what the goal is about.
func (r row) figures() []float64 {
	f := slices.Clone(r.ours)
	if len(r.theirs) > 0 && !r.absolute {
		for i := range f {
			f[i] /= r.theirs[i]
		}
	}
	return f
}

// last shows the last pair.
func (r row) last() string {
	n := len(r.ours) - 1
	return fmt.Sprintf("%.3f (%s : %s %s)", r.ours[n]/r.theirs[n], number(r.ours[n]), number(r.theirs[n]), r.unit)
}

func median(figures []float64) float64 {
	sorted := slices.Sorted(slices.Values(figures))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

func number(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.3g", v)
	}
}

// medians are ours and the partner's, in the unit of the row.
func (r row) medians() string {
	s := number(median(r.ours))
	if len(r.theirs) > 0 {
		s += " : " + number(median(r.theirs))
	}
	return s + " " + r.unit
}

func (r row) String() string {
	f := r.figures()
	return fmt.Sprintf("%s: %.3f (%s)", r.what, median(f), r.medians())
}

// format writes the table in Markdown.
func format(table []row) string {
	var b strings.Builder
	fmt.Fprintln(&b, "| what | partner | goal | median | min – max | pairs | medians, ours : partner's | |")
	fmt.Fprintln(&b, "|---|---|---|---|---|---|---|---|")
	for _, r := range table {
		f := r.figures()
		met := "met"
		switch {
		case r.goal.op == "":
			met = ""
		case !r.goal.met(median(f)):
			met = "**missed**"
		}
		fmt.Fprintf(&b, "| %s | %s | %v | %s | %s – %s | %d | %s | %s |\n",
			r.what, r.partner, r.goal, figure(median(f)), figure(slices.Min(f)), figure(slices.Max(f)), len(f), r.medians(), met)
	}
	return b.String()
}

func figure(v float64) string {
	if v < 10 {
		return fmt.Sprintf("%.3f", v)
	}
	return number(v)
}

const (
	report = "../docs/performance.md"
	begin  = "<!-- table: make bench -->\n"
	end    = "<!-- end of table -->\n"
)

// write puts the table into the report.
func write(table string) error {
	text, err := os.ReadFile(report)
	if err != nil {
		return err
	}
	before, rest, found := strings.Cut(string(text), begin)
	_, after, closed := strings.Cut(rest, end)
	if !found || !closed {
		return errors.New(report + " has no place for the table")
	}
	return os.WriteFile(report, []byte(before+begin+"\n"+table+"\n"+end+after), 0o644)
}
