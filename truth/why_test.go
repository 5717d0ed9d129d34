package truth

import (
	"fmt"
	"slices"
	"strings"
)

// wrong reports whether an account's story is worth telling.
func (a *account) wrong() bool {
	r := a.judge()
	return len(r.breaks(false)) > 0
}

// why is the story of an account in which something went wrong.
func (a *account) why() string {
	var b strings.Builder
	all := slices.Clone(a.playbacks)
	slices.SortFunc(all, func(p, q *played) int {
		if p.asked < q.asked {
			return -1
		}
		return 1
	})
	fmt.Fprintf(&b, "%s, %s\n", a.user, a.group)
	for _, p := range all {
		fmt.Fprintf(&b, "\t%6.1f-%5.1f, over %6.1f: %-40s admitted %v %s%s, watched %.1f, pauses %v\n", p.asked, p.answered, p.over, p.kind.name, p.admitted, p.code, p.interrupted, p.spells, p.pauses)
	}
	return b.String()
}
