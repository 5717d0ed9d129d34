package truth

import (
	"slices"
	"strings"
	"sync"
	"time"
)

// book is what truly happened, written down by the players themselves and judged
// when all is over. Times are seconds of life from the beginning.
type book struct {
	began time.Time

	mu       sync.Mutex
	accounts []*account
}

// account is four players with one user.
type account struct {
	user, group string // the group is what its row is called
	playbacks   []*played
	samples     []sample
}

// played is a playback, or the attempt at one.
type played struct {
	kind *kind

	asked, answered float64
	admitted        bool
	code            string  // what the start was refused with
	over            float64 // when nobody plays it any more; the end of the test if never
	spells          []spell // when its media were answered
	goodbye         bool    // it has said so

	interrupted string // what it was refused with in the middle of it
	pauses      []pause
}

type spell struct{ from, to float64 }

// pause is one that its viewer came back from.
type pause struct {
	lasted float64
	closed bool   // every connection, meanwhile
	taken  string // what the viewer was refused with
}

// sample is what GET /guards told of an account.
type sample struct {
	asked, answered float64
	active          int // guards
	listed          int // those that have not been closed
}

func (b *book) now() float64 { return time.Since(b.began).Seconds() * pace }

// write changes what is written, with the time.
func (b *book) write(change func(now float64)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change(b.now())
}

// row is what is said of a group of accounts.
type row struct {
	Starts, Refused       int     // with or without room
	Room, Admitted        int     // starts with room, and those of them that were admitted
	Fresh                 int     // refusals with room that there had not been 6 s before
	Within                int     // refusals though fewer slots than the limit can have been taken
	Played                int     // playbacks that were admitted
	Interrupted, Steady   int     // in the middle of it; of those who ask every 5 s or keep a connection
	Beyond, Watched       float64 // seconds that somebody watched beyond the limit, and all
	Closed, ClosedTaken   int     // pauses up to ttl with all connections closed, and who came back to a taken slot
	Kept, KeptTaken       int     // the same with a connection that was kept
	Long, LongTaken       int     // pauses longer than ttl
	Samples, Under, Above int     // of GET /guards: somebody watches and is not there, or more are active than there are
	Notes                 map[string]int
}

func (r *row) add(o *row) {
	r.Starts += o.Starts
	r.Refused += o.Refused
	r.Room += o.Room
	r.Admitted += o.Admitted
	r.Fresh += o.Fresh
	r.Within += o.Within
	r.Played += o.Played
	r.Interrupted += o.Interrupted
	r.Steady += o.Steady
	r.Beyond += o.Beyond
	r.Watched += o.Watched
	r.Closed += o.Closed
	r.ClosedTaken += o.ClosedTaken
	r.Kept += o.Kept
	r.KeptTaken += o.KeptTaken
	r.Long += o.Long
	r.LongTaken += o.LongTaken
	r.Samples += o.Samples
	r.Under += o.Under
	r.Above += o.Above
	for what, n := range o.Notes {
		r.note(what, n)
	}
}

func (r *row) note(what string, n int) {
	if r.Notes == nil {
		r.Notes = make(map[string]int)
	}
	r.Notes[what] += n
}

// most is the largest number of others that are counted by until at one moment from
// from to to. A playback counts from when its start was asked for.
func most(others []*played, from, to float64, until func(*played) float64) int {
	count := func(t float64) (n int) {
		for _, o := range others {
			if o.admitted && o.asked <= t && t < until(o) {
				n++
			}
		}
		return n
	}
	n := count(from)
	for _, o := range others {
		if o.asked > from && o.asked <= to {
			n = max(n, count(o.asked))
		}
	}
	return n
}

// kept is until when an ended playback can have its slot: ttl after its end, if
// nothing tells of that sooner. The second is for what was under way.
func kept(p *played) float64 {
	if p.goodbye {
		return p.over + 1
	}
	return p.over + ttl + 1
}

func over(p *played) float64 { return p.over }

// noticed is when a gate that sees a playback's connections closed makes use of it.
func noticed(p *played) float64 { return p.over + 6 }

// judge says of an account what was right and what was wrong.
func (a *account) judge() (r row) {
	for _, p := range a.playbacks {
		r.Starts++
		others := slices.DeleteFunc(slices.Clone(a.playbacks), func(o *played) bool { return o == p })
		room := most(others, p.asked, p.answered, over) < limit
		if room {
			r.Room++
		}
		if p.admitted {
			r.Played++
			if room {
				r.Admitted++
			}
		} else {
			r.Refused++
			r.note("refused: "+p.code, 1)
			if room && most(others, p.asked, p.answered, noticed) >= limit {
				r.Fresh++
			}
			if room {
				r.note("refused with room, beside "+a.ghosts(p), 1)
			}
			if most(others, p.asked, p.answered, kept) < limit {
				r.Within++
				r.note("within the limit: "+p.kind.name+": "+p.code, 1)
			}
		}
		if p.interrupted != "" {
			r.Interrupted++
			r.note("interrupted: "+p.kind.name+": "+p.interrupted, 1)
			if p.kind.steady() {
				r.Steady++
			}
		}
		for _, q := range p.pauses {
			taken := 0
			if q.taken != "" {
				taken = 1
			}
			switch {
			case q.lasted > ttl-1:
				r.Long++
				r.LongTaken += taken
			case q.closed:
				r.Closed++
				r.ClosedTaken += taken
			default:
				r.Kept++
				r.KeptTaken += taken
			}
		}
		for _, s := range p.spells {
			r.Watched += s.to - s.from
		}
	}
	if r.Beyond = a.beyond(); r.Beyond > 0 {
		var of []string
		for _, p := range a.playbacks {
			of = append(of, p.kind.name)
		}
		slices.Sort(of)
		r.note("beyond: "+strings.Join(slices.Compact(of), "; "), 1)
	}
	for _, s := range a.samples {
		r.Samples++
		if s.active > most(a.playbacks, s.asked, s.answered, over) {
			r.Above++
		}
		if s.listed < a.watched(s.asked, s.answered) {
			r.Under++
			for _, p := range a.playbacks {
				if p.watched(s.asked, s.answered) {
					r.note("under, and watched: "+p.kind.name, 1)
				}
			}
		}
	}
	return r
}

// ghosts are what was over when a start was refused, and may have had a slot: the
// kinds of players, and whether the end was a moment ago.
func (a *account) ghosts(p *played) string {
	var of []string
	for _, o := range a.playbacks {
		if ago := p.answered - o.over; o.admitted && !o.goodbye && ago > 0 && ago < ttl+1 {
			kind := o.kind.name
			if ago < 6 {
				kind += " (just now)"
			}
			of = append(of, kind)
		}
	}
	slices.Sort(of)
	return strings.Join(slices.Compact(of), "; ")
}

// beyond is for how many seconds how many watched beyond the limit.
func (a *account) beyond() (seconds float64) {
	type change struct {
		at float64
		by int
	}
	var changes []change
	for _, p := range a.playbacks {
		for _, s := range p.spells {
			changes = append(changes, change{s.from, 1}, change{s.to, -1})
		}
	}
	slices.SortFunc(changes, func(a, b change) int {
		if a.at < b.at || a.at == b.at && a.by < b.by {
			return -1
		}
		return 1
	})
	watching, last := 0, 0.0
	for _, c := range changes {
		seconds += float64(max(0, watching-limit)) * (c.at - last)
		watching, last = watching+c.by, c.at
	}
	return seconds
}

// watched is how many watched during all of a time.
func (a *account) watched(from, to float64) (n int) {
	for _, p := range a.playbacks {
		if p.watched(from, to) {
			n++
		}
	}
	return n
}

func (p *played) watched(from, to float64) bool {
	return slices.ContainsFunc(p.spells, func(s spell) bool { return s.from <= from && to <= s.to })
}
