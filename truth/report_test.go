package truth

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// report is a row for each group of accounts.
type report struct {
	groups []string
	rows   map[string]*row
}

// of adds what was found in a world.
func (r *report) of(w *world) {
	if r.rows == nil {
		r.rows = make(map[string]*row)
	}
	for _, a := range w.accounts {
		if r.rows[a.group] == nil {
			r.rows[a.group] = new(row)
			r.groups = append(r.groups, a.group)
		}
		judged := a.judge()
		r.rows[a.group].add(&judged)
	}
}

// String is a table as documents have it, and what else there is to know.
func (r *report) String() string {
	var b strings.Builder
	b.WriteString("| players | starts with room: admitted | refused, the room younger than 6 s | refused by mistake | playbacks interrupted | seconds beyond the limit | back after a pause, slot taken: all closed | connection kept | longer than `ttl` | samples of `GET /guards`: under | over |\n")
	b.WriteString("|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, name := range r.groups {
		w := r.rows[name]
		fmt.Fprintf(&b, "| %s | %d of %d, %.0f %% | %d | %d of %d | %d of %d | %.1f of %.0f | %d of %d | %d of %d | %d of %d | %d of %d | %d |\n", name,
			w.Admitted, w.Room, 100*w.share(), w.Fresh, w.Within, w.Refused, w.Interrupted, w.Played, w.Beyond, w.Watched,
			w.ClosedTaken, w.Closed, w.KeptTaken, w.Kept, w.LongTaken, w.Long, w.Under, w.Samples, w.Above)
	}
	for _, name := range r.groups {
		for _, note := range slices.Sorted(maps.Keys(r.rows[name].Notes)) {
			fmt.Fprintf(&b, "%s: %d × %s\n", name, r.rows[name].Notes[note], note)
		}
	}
	return b.String()
}

// share is that of the starts with room which were admitted.
func (r *row) share() float64 { return float64(r.Admitted) / max(1, float64(r.Room)) }
