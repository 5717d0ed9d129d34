package playback

import (
	"strings"

	"github.com/dunglas/httpsfv"
)

// Report is the last that a player's events say of the state of a session.
type Report struct {
	Session string // sid
	State   State

	at int64 // ts, the player's clock
}

// State is what a player does: sta, or 0 where a report does not say it.
type State byte

// Over reports whether the playback is at an end: it has ended, failed for
// good, or its viewer quit.
func (s State) Over() bool { return s == 'e' || s == 'f' || s == 'q' }

// Before reports whether there is no playback yet: the player preloads, or
// waits for what starts it. It may stay so for as long as its page is open.
func (s State) Before() bool { return s == 'd' || s == 's' }

// MaxSessions is how many sessions one body of events may report on.
const MaxSessions = 16

// Reports reads the body of a request in CMCD's event mode (CTA-5004, version
// 2): a dictionary on each line. It returns one report for each session, the
// latest by the player's own clock that says its state, if any does: a report
// that could not be delivered comes again, behind later ones. What cannot be
// read is as if absent.
func Reports(body string) []Report {
	var latest []Report
	for line := range strings.SplitSeq(body, "\n") {
		if r, ok := readReport(strings.TrimSuffix(line, "\r")); ok {
			latest = keepLatest(latest, r)
		}
	}
	return latest
}

func keepLatest(latest []Report, r Report) []Report {
	for i := range latest {
		if latest[i].Session == r.Session {
			if r.at == 0 {
				r.at = latest[i].at // without a time it belongs where it stands
			}
			if r.State != 0 && (latest[i].State == 0 || r.at >= latest[i].at) {
				latest[i] = r
			}
			return latest
		}
	}
	if len(latest) == MaxSessions {
		return latest
	}
	return append(latest, r)
}

func readReport(line string) (r Report, ok bool) {
	dict, err := httpsfv.UnmarshalDictionary([]string{line})
	if err != nil {
		return r, false
	}
	r.Session = under[string](dict, "sid")
	if r.Session == "" || len(r.Session) > maxSessionID {
		return r, false
	}
	if sta := under[httpsfv.Token](dict, "sta"); len(sta) == 1 {
		r.State = State(sta[0])
	}
	r.at = under[int64](dict, "ts")
	return r, true
}
