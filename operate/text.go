package operate

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/streamguard/streamguard/audience"
)

// WriteReport writes a report for people. Nothing in it can do anything to a terminal.
func WriteReport(w io.Writer, r *audience.Report) {
	for _, note := range r.Notes {
		fmt.Fprintf(w, "- %s\n", Printable(note))
	}
	if len(r.Notes) > 0 {
		fmt.Fprintln(w)
	}
	if r.Playbacks == 0 {
		fmt.Fprintln(w, "Nobody has watched.")
		if r.Lines != nil {
			writeFindings(w, r)
			WriteLines(w, r.Lines)
		}
		return
	}
	atLeast := ""
	if r.UsersAtLeast {
		atLeast = "at least "
	}
	where := r.Store
	if r.Site != "" {
		where = r.Site
	}
	fmt.Fprintf(w, "%s started since %s in %s. Of these a limit would have refused:\n",
		Count(r.Playbacks, "playback"), r.Since.Local().Format(time.DateTime+" MST"), Printable(where))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "LIMIT\tUSERS\tPLAYBACKS\tSHARE")
	for _, l := range r.Limits {
		fmt.Fprintf(t, "%d\t%s%d\t%d\t%s\n", l.Limit, atLeast, l.Users, l.Outcome.Playbacks, percent(l.Share))
	}
	t.Flush()
	fmt.Fprintln(w, aboutSlots)
	if len(r.Rules) > 0 {
		fmt.Fprintln(w, "\nAnd the configured limits, each alone and then together:")
		fmt.Fprintln(t, "LIMIT\tUSERS\tREFUSED\tREPLACED\tSHARE")
		for _, rule := range r.Rules {
			if rule.Unanswered != "" {
				fmt.Fprintf(t, "%s\t%s\n", Printable(rule.Rule), Printable(rule.Unanswered))
				continue
			}
			writeOutcome(t, rule.Rule, atLeast, rule.Outcome)
		}
		together := "together"
		if r.Incomplete {
			together = "as far as that is known, together"
		}
		writeOutcome(t, together, atLeast, r.Configured)
		t.Flush()
	}
	fmt.Fprintf(w, "\n%s%s watched %s until %s, by %s that kept playbacks going.\n", atLeast, Count(r.Users, "user"), Count(r.Streams, "stream"), Clock(r.Until), Count(r.Requests, "request"))
	if r.Attempts > 0 {
		fmt.Fprintf(w, "%s had been refused already: what would have been watched then is not known.\n", Count(r.Attempts, "start"))
	}
	if r.Beyond > 0 {
		fmt.Fprintf(w, "%s of users with very many playbacks are not counted.\n", Count(r.Beyond, "start"))
	}
	if r.LongerThanKept {
		fmt.Fprintln(w, "It was longer than 92 days: what comes by the hour or the minute is not complete.")
	}
	if len(r.AtOnce) > 0 {
		fmt.Fprintln(w, "\nAt once, from the first request of each playback to its last:")
		fmt.Fprintln(t, "AT ONCE\tUSERS\tWITH NEVER MORE\tTIME OF ALL")
		for _, a := range r.AtOnce {
			fmt.Fprintf(t, "%d\t%s%d\t%d\t%v\n", a.Playbacks, atLeast, a.Users, a.Most, time.Duration(a.Seconds)*time.Second)
		}
		t.Flush()
		fmt.Fprintln(w, "\nThe users with the most at once:")
		fmt.Fprintln(t, "USER\tMOST\tAT\tPLAYBACKS\tREFUSED")
		for _, u := range r.Top {
			fmt.Fprintf(t, "%s\t%d\t%s\t%d\t%d\n", Printable(u.User), u.Most, Clock(u.At), u.Playbacks, u.Refused)
		}
		t.Flush()
	}
	writeHours(w, r)
	writeFindings(w, r)
	fmt.Fprintf(w, "\n%.1f guards are made a minute, %d in the busiest; the store is called %.1f times a minute, %d in the busiest.\n",
		r.Load.StartsPerMinute, r.Load.MostPerMinute, r.Load.CallsPerMinute, r.Load.MostCalls)
	if l := r.Lines; l != nil {
		WriteLines(w, l)
	}
}

// aboutSlots is why a limit may refuse more users than have ever had more at once.
const aboutSlots = "A playback keeps its slot for the option ttl after its last refresh: a limit may refuse users who never watched more at once."

func writeOutcome(w io.Writer, rule, atLeast string, o audience.Outcome) {
	fmt.Fprintf(w, "%s\t%s%d\t%d\t%d\t%s\n", Printable(rule), atLeast, o.Users, o.Playbacks, o.Replaced, percent(o.Share))
}

// shownHours is how many hours a terminal is shown; JSON and the page have all.
const shownHours = 48

func writeHours(w io.Writer, r *audience.Report) {
	if len(r.Hours) < 2 {
		return
	}
	fmt.Fprintln(w, "\nBy the hour, what the configured limits would have refused:")
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "HOUR\tPLAYBACKS\tREFUSED\tREPLACED")
	hours := r.Hours
	if skipped := len(hours) - shownHours; skipped > 0 {
		fmt.Fprintf(t, "(%s more)\n", Count(int64(skipped), "hour"))
		hours = hours[skipped:]
	}
	for _, h := range hours {
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\n", h.At.Local().Format(toTheMinute), h.Playbacks, h.Would, h.Replaced)
	}
	t.Flush()
}

func writeFindings(w io.Writer, r *audience.Report) {
	if r.SelfRefusals > 0 {
		fmt.Fprintf(w, "\n%s would probably have been refused by mistake, because of the same viewer's own: all in the way had begun less than a minute before on what may be the same client.\n", Count(r.SelfRefusals, "playback"))
		writeExamples(w, r.SelfRefusalExamples)
	}
	if r.Renamed > 0 {
		fmt.Fprintf(w, "\n%s had more than one name: a player that names every request anew counts once for each where nothing else names it.\n", Count(r.Renamed, "playback"))
		writeExamples(w, r.RenamedExamples)
	}
	if len(r.Uncounted) > 0 {
		fmt.Fprintln(w, "\nThese look like manifests or media, and are not counted (option kind):")
		for _, u := range r.Uncounted {
			fmt.Fprintf(w, "  kind %s %s  %s, such as %s\n", u.Kind, Printable(u.Paths), Count(u.Requests, "request"), Printable(u.Example))
		}
	}
	if len(r.Crowded) > 0 {
		fmt.Fprintln(w, "\nThese streams have many manifests: if they are different titles, the option stream has to tell them apart:")
		for _, c := range r.Crowded {
			fmt.Fprintf(w, "  %s: %s\n", Printable(c.Stream), Printable(strings.Join(c.Paths, " ")))
		}
	}
}

func writeExamples(w io.Writer, examples []audience.Example) {
	for _, e := range examples {
		fmt.Fprintf(w, "  %s, %s\n", Printable(e.User), Printable(e.Stream))
		for _, line := range e.Lines {
			fmt.Fprintf(w, "    %s\n", Printable(line))
		}
	}
}

// WriteLines writes what became of a log's lines.
func WriteLines(w io.Writer, l *audience.Lines) {
	fmt.Fprintf(w, "\n%s read: %d are requests for manifests or media, %d are others.", Count(l.Read, "line"), l.Judged, l.Other)
	for _, more := range []struct {
		n    int64
		says string
	}{{l.Elsewhere, "are of other hosts"}, {l.Outside, "are outside --from and --to"}, {l.Nobody, "are of nobody"}, {l.Late, "came late, and count for when they came"}, {l.Twice, "are in another log, too"}, {l.Broken, "cannot be read"}} {
		if more.n > 0 {
			fmt.Fprintf(w, " %d %s.", more.n, more.says)
		}
	}
	if l.BrokenAt != "" {
		fmt.Fprintf(w, " The first that cannot be read: %s", Printable(l.BrokenAt))
	}
	if !l.Exhausted {
		fmt.Fprint(w, " The rest was not read.")
	}
	fmt.Fprintln(w)
}

func percent(share float64) string { return strconv.FormatFloat(share*100, 'f', 2, 64) + " %" }
