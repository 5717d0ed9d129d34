package audience

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/streamguard/streamguard/guard"
)

// Report is what an audience has done, and what limits would have made of it.
type Report struct {
	Store string    `json:"store,omitempty"` // of a Caddy that runs
	Site  string    `json:"site,omitempty"`  // of a log
	Since time.Time `json:"since"`
	Until time.Time `json:"until"`

	Requests  int64 `json:"requests"` // for manifests and media, that were counted
	Users     int64 `json:"users"`
	Streams   int64 `json:"streams"`
	Playbacks int64 `json:"playbacks"` // that began
	Attempts  int64 `json:"attempts"`  // requests of those, that were refused when they were made

	// Beyond are starts of users who had as many playbacks as a store keeps of one user
	// who is only observed (guard.MaxObserved): they are in no other number.
	Beyond int64 `json:"beyond,omitempty"`

	// How many playbacks users have had at once: from the first request of each to its
	// last.
	AtOnce []AtOnce `json:"atOnce"`
	// How many playbacks there were, in each minute in which that changed.
	Minutes []Minute `json:"minutes"`
	Hours   []Hour   `json:"hours"` // the same by the hour, of what began

	Limits     []LimitReport `json:"limits"`               // those from 1 to 10, each alone
	Rules      []RuleReport  `json:"rules"`                // the configured ones, each alone
	Configured Outcome       `json:"configured"`           // and all together,
	Incomplete bool          `json:"incomplete,omitempty"` // as far as the log answers them

	Top []TopUser `json:"top"` // the users with the most at once

	// SelfRefusals are playbacks that the configured limits would have refused, where
	// all that stood in the way had begun less than a minute before on what may be
	// the same client.
	SelfRefusals        int64       `json:"suspectedSelfRefusals"`
	SelfRefusalExamples []Example   `json:"selfRefusalExamples,omitempty"`
	Uncounted           []Uncounted `json:"uncounted,omitempty"` // paths that look like manifests or media, most requests first
	Crowded             []Crowd     `json:"crowded,omitempty"`   // streams with suspiciously many manifests
	Renamed             int64       `json:"renamed"`             // playbacks whose players gave them more than one name
	RenamedExamples     []Example   `json:"renamedExamples,omitempty"`

	Load Load `json:"load"`

	// There were more users than are remembered: numbers of users are too low.
	UsersAtLeast bool `json:"usersAtLeast,omitempty"`

	// There were more hours than are remembered, 92 days: the rest is in Hours, Minutes
	// and Load only in part.
	LongerThanKept bool `json:"longerThanKept,omitempty"`

	// Of a log: what it does not say and what follows, what was assumed, and what
	// became of its lines.
	Notes []string `json:"notes,omitempty"`
	Lines *Lines   `json:"lines,omitempty"`
}

// AtOnce is about users with so many playbacks.
type AtOnce struct {
	Playbacks int     `json:"playbacks"`
	Users     int64   `json:"users"`   // who have ever had so many
	Most      int64   `json:"most"`    // of these, who have never had more
	Seconds   float64 `json:"seconds"` // in which users had exactly so many, of all users together
}

// Minute is how many playbacks there were within one.
type Minute struct {
	At        time.Time `json:"at"`
	Playbacks int64     `json:"playbacks"`
}

// Hour is what began within one.
type Hour struct {
	At        time.Time `json:"at"`
	Playbacks int64     `json:"playbacks"`
	Refused   []int64   `json:"refused"`    // of these, by limits from 1 to 10
	Would     int64     `json:"configured"` // and by those that are configured
	Replaced  int64     `json:"replaced"`   // playbacks that the configured limits would have ended
}

// Outcome is what limits would have made of the playbacks.
type Outcome struct {
	Playbacks int64   `json:"playbacks"` // refused
	Replaced  int64   `json:"replaced"`  // ended for another
	Users     int64   `json:"users"`     // of whom some were refused
	Share     float64 `json:"share"`     // of the playbacks that were refused, from 0 to 1
}

// LimitReport is what a limit would have refused.
type LimitReport struct {
	Limit int `json:"limit"`
	Outcome
}

// RuleReport is what a configured limit would have refused or ended. One that the log
// cannot answer says why.
type RuleReport struct {
	Rule string `json:"rule"` // as the Caddyfile has it
	Per  string `json:"per,omitempty"`
	Outcome
	Unanswered string `json:"unanswered,omitempty"`
}

// TopUser is a user among others.
type TopUser struct {
	User      string    `json:"user"`
	Most      int       `json:"most"` // playbacks at once
	At        time.Time `json:"at"`   // when that was, first
	Playbacks int64     `json:"playbacks"`
	Refused   int64     `json:"refused"` // of these, by the configured limits
}

// Example shows a finding.
type Example struct {
	User   string   `json:"user"`
	Stream string   `json:"stream"`
	Lines  []string `json:"lines"`
}

// Crowd is a stream that is perhaps several titles.
type Crowd struct {
	Stream string   `json:"stream"`
	Paths  []string `json:"paths"`
}

// Uncounted are paths that look like manifests or media, and are not counted.
type Uncounted struct {
	Kind     string `json:"kind"` // manifest or media
	Paths    string `json:"paths"`
	Requests int64  `json:"requests"`
	Example  string `json:"example"`
}

// Load is what the audience costs.
type Load struct {
	StartsPerMinute float64 `json:"startsPerMinute"` // guards that are made, on average
	MostPerMinute   int64   `json:"mostPerMinute"`   // and in the busiest minute
	CallsPerMinute  float64 `json:"callsPerMinute"`  // to the store, on average
	MostCalls       int64   `json:"mostCalls"`       // and in the busiest minute
}

// Lines are the lines of a log.
type Lines struct {
	Read      int64  `json:"read"`
	Judged    int64  `json:"judged"`             // of requests for manifests and media
	Other     int64  `json:"other"`              // of other requests
	Elsewhere int64  `json:"elsewhere"`          // of other hosts than the one that was asked for
	Outside   int64  `json:"outside"`            // of other times
	Broken    int64  `json:"broken"`             // that are none
	BrokenAt  string `json:"brokenAt,omitempty"` // where the first of these is, and what is wrong with it
	Late      int64  `json:"late"`               // that came out of order, and count for the time at which they came
	Nobody    int64  `json:"nobody"`             // of nobody
	Twice     int64  `json:"twice"`              // that another log has, too
	Exhausted bool   `json:"exhausted"`          // the log was read to its end
}

// Report says what was seen. It is not ok where nobody has watched.
func (a *Audience) Report() (_ Report, ok bool) {
	a.mu.Lock()
	r := Report{
		Since: a.since, Until: a.since, Uncounted: a.overlooked(), Crowded: slices.Clone(a.crowded),
		SelfRefusalExamples: slices.Clone(a.examples[selfRefused]), RenamedExamples: slices.Clone(a.examples[renamed]),
		Limits: []LimitReport{}, AtOnce: []AtOnce{}, Minutes: []Minute{}, Hours: []Hour{}, Rules: []RuleReport{}, Top: []TopUser{},
	}
	calls := maps.Clone(a.calls)
	a.mu.Unlock()
	if r.Since.IsZero() {
		return r, false
	}
	var all shard
	all.init()
	for i := range a.shards {
		r.add(&a.shards[i], &all)
	}
	r.Playbacks = all.playbacks
	for n := 1; n <= MaxLimit; n++ {
		r.Limits = append(r.Limits, LimitReport{n, r.outcome(all.results[n])})
	}
	slices.SortStableFunc(all.rules, func(a, b ruleOutcome) int { // those of all the user's playbacks are the last
		if (a.rule.Per == "") == (b.rule.Per == "") {
			return 0
		}
		return strings.Compare(b.rule.Per, a.rule.Per)
	})
	for _, o := range all.rules {
		r.Rules = append(r.Rules, RuleReport{Rule: o.String(), Per: o.rule.Per, Outcome: r.outcome(o.outcome)})
	}
	r.Configured = r.outcome(all.results[configured])
	for _, at := range slices.Sorted(maps.Keys(all.hours)) {
		h := all.hours[at]
		r.Hours = append(r.Hours, Hour{time.UnixMilli(at * anHour).UTC(), h.playbacks, h.refused[1:], h.refused[configured], h.replaced})
	}
	r.sumUp(&all, calls)
	return r, true
}

// add adds what a part has seen to all of it.
func (r *Report) add(s, all *shard) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.Users += int64(len(s.users))
	r.Streams += int64(len(s.streams))
	r.Requests += s.requests
	r.Attempts += s.attempts
	r.Beyond += s.beyond
	r.LongerThanKept = r.LongerThanKept || s.long
	r.SelfRefusals += s.selves
	r.Renamed += s.renamed
	r.UsersAtLeast = r.UsersAtLeast || s.full
	if latest := time.UnixMilli(s.latest).UTC(); latest.After(r.Until) {
		r.Until = latest
	}
	all.playbacks += s.playbacks
	for n := range s.results {
		all.results[n].add(s.results[n])
	}
	for _, o := range s.rules {
		i := all.row(o.rule)
		if i >= maxRules {
			continue
		}
		a := &all.rules[i]
		a.add(o.outcome)
		a.lowest, a.rule.Limit = min(a.lowest, o.lowest), max(a.rule.Limit, o.rule.Limit)
	}
	for at, h := range s.hours {
		sum := all.hour(at * anHour)
		sum.playbacks += h.playbacks
		sum.replaced += h.replaced
		for n := range h.refused {
			sum.refused[n] += h.refused[n]
		}
	}
	for at, m := range s.minutes {
		all.inMinute(at*minute, m.more, m.starts)
	}
	for name, u := range s.users {
		now := *u
		now.playbacks, now.together = slices.Clone(u.playbacks), slices.Clone(u.together)
		now.measure(math.MaxInt64)
		for i := range now.playbacks {
			if p := &now.playbacks[i]; !p.attempt {
				all.lasted(p)
			}
		}
		r.addUser(name, &now)
	}
}

func (o *outcome) add(more outcome) {
	o.refused += more.refused
	o.replaced += more.replaced
	o.users += more.users
}

func (r *Report) addUser(name string, u *user) {
	for len(r.AtOnce) < u.most {
		r.AtOnce = append(r.AtOnce, AtOnce{Playbacks: len(r.AtOnce) + 1})
	}
	for n := range u.most {
		r.AtOnce[n].Users++
		if n < len(u.together) {
			r.AtOnce[n].Seconds += float64(u.together[n]) / 1000
		}
	}
	if u.most > 0 {
		r.AtOnce[u.most-1].Most++
	}
	top := TopUser{User: name, Most: u.most, At: time.UnixMilli(u.mostAt).UTC(), Playbacks: u.playbacksStarted, Refused: u.refused}
	i, _ := slices.BinarySearchFunc(r.Top, top, func(a, b TopUser) int {
		return cmp.Or(cmp.Compare(b.Most, a.Most), cmp.Compare(b.Refused, a.Refused), cmp.Compare(b.Playbacks, a.Playbacks), cmp.Compare(a.User, b.User))
	})
	if i < maxExamples {
		r.Top = slices.Insert(r.Top, i, top)
		r.Top = r.Top[:min(len(r.Top), maxExamples)]
	}
}

func (r *Report) outcome(o outcome) Outcome {
	return Outcome{o.refused, o.replaced, o.users, float64(o.refused) / float64(max(r.Playbacks, 1))}
}

// sumUp fills in what there was in each minute.
func (r *Report) sumUp(all *shard, calls map[int64]int64) {
	var now, busy int64
	for _, at := range slices.Sorted(maps.Keys(all.minutes)) {
		m := all.minutes[at]
		if m.more != 0 {
			now += int64(m.more)
			r.Minutes = append(r.Minutes, Minute{time.UnixMilli(at * minute).UTC(), now})
		}
		if m.starts > 0 {
			busy++
		}
		r.Load.MostPerMinute = max(r.Load.MostPerMinute, int64(m.starts))
	}
	minutes := max(r.Until.Sub(r.Since).Minutes(), float64(len(calls)), float64(busy), 1)
	r.Load.StartsPerMinute = float64(r.Playbacks) / minutes
	for _, n := range calls {
		r.Load.CallsPerMinute += float64(n) / minutes
		r.Load.MostCalls = max(r.Load.MostCalls, n)
	}
}

// String is the rule as a Caddyfile has it.
func (o *ruleOutcome) String() string {
	number := func(n int) string {
		if n == guard.Unlimited {
			return "unlimited"
		}
		return strconv.Itoa(n)
	}
	s := "limit " + number(o.rule.Limit)
	if o.lowest != o.rule.Limit {
		s = fmt.Sprintf("limit %s to %s, not the same for all", number(o.lowest), number(o.rule.Limit))
	}
	if o.rule.Per != "" {
		s += " per " + o.rule.Per
	}
	switch o.rule.AtLimit {
	case guard.ReplaceOldest:
		s += " replace"
	case guard.ReplaceDevice:
		s += " replace device"
	}
	return s
}
