package audience

import (
	"cmp"
	"slices"
)

// count counts how long a user had how many playbacks at once, as far as it is known:
// a playback that was last heard of before a moment is over, and of the others it is
// certain that they lasted until their last request. What is over and counted goes.
func (s *shard) count(u *user, now, over int64) {
	until := now
	for i := range u.playbacks {
		if p := &u.playbacks[i]; p.last >= over && !p.attempt {
			until = min(until, p.last)
		}
	}
	u.measure(until)
	u.playbacks = slices.DeleteFunc(u.playbacks, func(p playback) bool {
		gone := p.last < over && (p.last <= until || p.attempt)
		if gone && !p.attempt {
			s.lasted(&p)
		}
		return gone
	})
}

const minute, anHour = 60_000, 3_600_000

// measure adds up the time until a moment.
func (u *user) measure(until int64) {
	type edge struct {
		at   int64
		more int
	}
	var edges []edge
	for i := range u.playbacks {
		p := &u.playbacks[i]
		if p.attempt || p.last < u.counted || p.first > until {
			continue
		}
		edges = append(edges, edge{max(p.first, u.counted), 1})
		if p.last <= until {
			edges = append(edges, edge{p.last, -1})
		}
	}
	slices.SortFunc(edges, func(a, b edge) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(b.more, a.more)) })
	n, at := 0, u.counted
	for _, e := range append(edges, edge{until, 0}) {
		if n > 0 && e.at > at {
			for len(u.together) < n {
				u.together = append(u.together, 0)
			}
			u.together[n-1] += e.at - at
		}
		at = e.at
		if n += e.more; n > u.most {
			u.most, u.mostAt = n, at
		}
	}
	u.counted = max(u.counted, until)
}

// lasted enters a playback's minutes.
func (s *shard) lasted(p *playback) {
	s.inMinute(p.first, 1, 0)
	s.inMinute(p.last+minute, -1, 0)
}
