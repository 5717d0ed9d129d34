package audience

import (
	"slices"
	"strings"
	"time"

	"github.com/streamguard/streamguard/guard"
)

// Start is a playback that begins, and that nobody refuses.
type Start struct {
	At      time.Time // when its guard was made
	Claim   guard.Claim
	Policy  guard.Policy  // that is configured
	Beside  []guard.Guard // what the user held at that moment, oldest first, without the playback's own
	Attempt bool          // somebody else has refused it: it does not play
	Beyond  bool          // the store keeps no more guards of this user: the start is only judged
	Example string        // a line that shows it
}

// What becomes of a start is asked of several policies at once, each known by a
// number: all that is configured, each limit from 1 to MaxLimit, and each configured
// limit for itself.
const (
	configured = 0
	firstRule  = MaxLimit + 1
	maxRules   = 32 - firstRule
)

// set is a set of policies, by their numbers.
type set uint32

func (s set) has(n int) bool { return s&(1<<n) != 0 }

// Start counts the start of a playback, and returns what the configured policy would
// have made of it. What a policy would have refused or ended before holds no slot
// under it.
func (a *Audience) Start(s *Start) guard.Verdict {
	a.Watch(s.At)
	a.seeStream(s.Claim.Stream)
	sh, now := a.shard(s.Claim.User), s.At.UnixMilli()
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.latest = max(sh.latest, now)
	u := sh.user(s.Claim.User)
	if u == nil {
		u = new(user) // of whom nothing is kept
	}
	if s.Beyond {
		sh.beyond++
		return u.judge(s, configured, s.Policy)
	}
	p := u.find(s.Claim.ID)
	if p == nil || p.last < now-s.Policy.TTL.Milliseconds() {
		if p = sh.open(u, now, s.Policy.TTL); p == nil {
			p = new(playback)
		}
		*p = playback{id: s.Claim.ID, stream: strings.Clone(s.Claim.Stream), first: now, last: now, attempt: true}
	}
	if p.attempt && !s.Attempt {
		p.attempt, p.first = false, now
	}
	p.last = max(p.last, now)
	h := sh.hour(now)
	if !p.started {
		p.started, p.example = true, s.Example
		sh.playbacks++
		h.playbacks++
		sh.inMinute(now, 0, 1)
		u.playbacksStarted++
	}
	if s.Attempt {
		sh.attempts++
	}
	p.out = 0
	all := sh.judge(u, p, h, s, configured, s.Policy)
	if SelfRefused(s.At, &s.Claim, &all) {
		sh.selves++
		a.addExample(selfRefused, Example{User: s.Claim.User, Stream: s.Claim.Stream, Lines: u.linesOf(all.InTheWay, s.Example)})
	}
	for n := 1; n <= min(MaxLimit, len(s.Beside)); n++ {
		sh.judge(u, p, h, s, n, guard.Policy{Limit: n})
	}
	for _, rule := range s.Policy.Rules {
		sh.judgeRule(u, p, h, s, rule)
	}
	sh.judgeRule(u, p, h, s, guard.Rule{Limit: s.Policy.Limit, AtLimit: s.Policy.AtLimit})
	return all
}

// judge judges a start by a policy, and counts what becomes of it: a playback that is
// refused is counted once.
func (s *shard) judge(u *user, p *playback, h *hour, start *Start, n int, policy guard.Policy) guard.Verdict {
	v := u.judge(start, n, policy)
	o := s.outcome(n)
	if v.Outcome == guard.Rejected {
		if p.out |= 1 << n; !p.wasOut.has(n) {
			p.wasOut |= 1 << n
			o.refused++
			if n <= MaxLimit {
				h.refused[n]++
			}
			if n == configured {
				u.refused++
			}
		}
		if !u.hit.has(n) {
			u.hit |= 1 << n
			o.users++
		}
	}
	for _, id := range thrownOut(&v) {
		o.replaced++
		if n == configured {
			h.replaced++
		}
		if other := u.find(id); other != nil {
			other.out |= 1 << n
		}
	}
	return v
}

// judge is the verdict of a policy about a start, among those that it has let in.
func (u *user) judge(s *Start, n int, p guard.Policy) guard.Verdict {
	p.Interval, p.TTL, p.Reclaim, p.Observe = s.Policy.Interval, s.Policy.TTL, s.Policy.Reclaim, false
	c := s.Claim
	c.Intent, c.Patience = guard.Play, 0 // what might be over is counted as it is
	beside := slices.DeleteFunc(slices.Clone(s.Beside), func(g guard.Guard) bool {
		other := u.find(g.ID)
		return g.ID == c.ID || other != nil && other.out.has(n)
	})
	return guard.NewLedger(beside).Acquire(s.At, c, p)
}

// judgeRule judges a start by one of the configured limits alone.
func (s *shard) judgeRule(u *user, p *playback, h *hour, start *Start, rule guard.Rule) {
	i := s.row(rule)
	if i >= maxRules {
		return
	}
	o := &s.rules[i]
	o.lowest, o.rule.Limit = min(o.lowest, rule.Limit), max(o.rule.Limit, rule.Limit)
	policy := guard.Policy{Limit: rule.Limit, AtLimit: rule.AtLimit}
	if rule.Per != "" {
		policy = guard.Policy{Limit: guard.Unlimited, Rules: []guard.Rule{rule}}
	}
	s.judge(u, p, h, start, firstRule+i, policy)
}

// row is where the outcome of a configured limit is. The same one may have another
// number for somebody else.
func (s *shard) row(rule guard.Rule) int {
	i := slices.IndexFunc(s.rules, func(o ruleOutcome) bool { return o.rule.Per == rule.Per && o.rule.AtLimit == rule.AtLimit })
	if i < 0 {
		if i = len(s.rules); i < maxRules {
			s.rules = append(s.rules, ruleOutcome{rule: rule, lowest: rule.Limit})
		}
	}
	return i
}

// thrownOut are the guards that a verdict has ended while somebody was watching.
func thrownOut(v *guard.Verdict) []guard.ID {
	if !v.Outcome.Pass() {
		return nil
	}
	return v.Replaced[v.Taken:]
}

func (s *shard) outcome(n int) *outcome {
	if n <= MaxLimit {
		return &s.results[n]
	}
	return &s.rules[n-firstRule].outcome
}

// linesOf shows what is in the way of a start, and the start.
func (u *user) linesOf(inTheWay []guard.Guard, start string) (lines []string) {
	for _, g := range inTheWay {
		if p := u.find(g.ID); p != nil && p.example != "" {
			lines = append(lines, p.example)
			break
		}
	}
	if start != "" {
		lines = append(lines, start)
	}
	return lines
}

// SelfRefused reports whether all that stands in the way of a start began a moment
// ago on what may be the same client.
func SelfRefused(at time.Time, c *guard.Claim, v *guard.Verdict) bool {
	if v.Outcome != guard.Rejected || v.Repeated || c.Client == 0 || v.Blocking == 0 || v.Blocking > len(v.InTheWay) {
		return false
	}
	for _, g := range v.InTheWay {
		if g.Client != c.Client || at.Sub(g.CreatedAt) >= time.Minute {
			return false
		}
	}
	return true
}
