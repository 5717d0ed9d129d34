package caddymodule

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/streamguard/streamguard/audience"
	"github.com/streamguard/streamguard/replay"
)

// Replay is a config with gates, and what is to be read of the logs that go through it.
type Replay struct {
	sites   *replayed
	options replay.Options
}

// NewReplay reads a config, of which only one site is replayed if it is named. Placeholders
// in the format's Set may be spelled in any way. Its error names the flag of the command
// that it is about.
func NewReplay(ctx caddy.Context, config []byte, site string, o replay.Options) (*Replay, error) {
	if u, err := url.Parse(site); err == nil && u.Host != "" {
		site = u.Host
	}
	site = asciiHost(withoutPort(site))
	set := make(map[string]string, len(o.Format.Set))
	for placeholder, field := range o.Format.Set {
		key := spelled(placeholder)
		if _, twice := set[key]; twice {
			return nil, fmt.Errorf("--set: %s is given twice", key)
		}
		set[key] = field
	}
	o.Format.Set = set
	sites, err := newReplayed(ctx, config, site, set)
	if site != "" {
		o.Hosts = func(host string) bool { return hostFits(site, withoutPort(host)) }
	}
	return &Replay{sites, o}, err
}

// Run has all lines of access logs go through the gates, and reports what came of them.
// What makes the numbers say little is its error, and comes first in the report's notes.
// Where nothing was counted, only the report's Lines say anything; it is nil where a log
// cannot be read.
func (r *Replay) Run(ctx context.Context, logs []string) (report *audience.Report, counted bool, err error) {
	lines, err := replay.Run(ctx, logs, r.sites, r.sites.clock, &r.options)
	if lines == nil {
		return nil, false, err
	}
	why := r.sites.uncounted(lines)
	if counted = why == nil; counted {
		why = r.sites.doubtful(lines)
	}
	err = errors.Join(err, why)
	return r.sites.report(lines, err), counted, err
}

func withoutPort(host string) string {
	if ip := strings.Trim(host, "[]"); net.ParseIP(ip) != nil {
		return ip
	}
	if name, _, err := net.SplitHostPort(host); err == nil {
		return name
	}
	return host
}

// uncounted is why nothing was counted, if so.
func (r *replayed) uncounted(l *audience.Lines) error {
	m := &r.missing
	switch all := l.Judged - m.failed - m.sentOn; {
	case l.Read == 0:
		return errors.New("there is no line to read")
	case l.Read == l.Broken:
		return errors.New("no line can be read: is it an access log?")
	case l.Read == l.Broken+l.Outside:
		return errors.New("all lines are outside --from and --to")
	case m.hostless > 0 && r.host == "" && l.Judged == 0:
		return fmt.Errorf("no line says its host, and the config has several sites: choose one by --site, of %s; or say where the host is by --field host=<field>", strings.Join(r.sites, "; "))
	case l.Judged == 0:
		return errors.New("no line is a request for a manifest or for media that a stream_guard of the config would see: is it the right log, and the right --site?")
	case all == 0:
		return fmt.Errorf("all requests for manifests and media were answered with an error (%d) or sent elsewhere (%d): nothing was watched", m.failed, m.sentOn)
	case all == l.Nobody:
		return errors.New("no line says who watches. " + r.userHint())
	case r.last.Year() < 2000:
		return fmt.Errorf("the last line is of %s: is it the right field for the time?", r.last.UTC().Format(time.DateTime))
	}
	return nil
}

// doubtful is why the numbers say little, if so.
func (r *replayed) doubtful(l *audience.Lines) (err error) {
	for _, found := range []struct {
		lines int64
		says  string
	}{
		{l.Late, "came out of order: give each part of a log, and the log of each node, as a file of its own"},
		{l.Broken, "cannot be read"},
		{l.Twice, "are in two of the logs: is one a copy of the other?"},
	} {
		if found.lines > l.Read/20 {
			err = errors.Join(err, fmt.Errorf("%d of %d lines %s", found.lines, l.Read, found.says))
		}
	}
	return err
}

// report is the audience's, with what the log does not say. First comes what is wrong.
func (r *replayed) report(lines *audience.Lines, wrong error) *audience.Report {
	report, _ := r.seen.Report()
	report.Lines = lines
	if report.Requests == 0 {
		report.Until = r.last.UTC()
	}
	report.Site = cmp.Or(r.site, strings.Join(r.sites, ", "), "the log")
	m := &r.missing
	note := func(format string, args ...any) { report.Notes = append(report.Notes, fmt.Sprintf(format, args...)) }
	if wrong != nil {
		for line := range strings.Lines(wrong.Error()) {
			note("%s", strings.TrimSpace(line))
		}
	}
	if !lines.Exhausted {
		note("The log was not read to its end.")
	}
	if report.Playbacks == 0 {
		note("No playback has begun: of what the config counts there are only requests for manifests, or none that was let in.")
	}
	shortest, longest := r.gates[0].TTL, r.gates[0].TTL
	for _, h := range r.gates {
		shortest, longest = min(shortest, h.TTL), max(longest, h.TTL)
	}
	ttl := time.Duration(shortest).String()
	if longest != shortest {
		ttl += " to " + time.Duration(longest).String()
	}
	note("A log has neither the bodies of manifests nor the closings of connections: a playback keeps its slot for ttl (%s) after its guard was refreshed last, "+
		"also when its player was closed. With reclaim closed the gate gives many of those slots away at once, so it refuses fewer than this says. What was playing when the log begins counts as begun then.", ttl)
	if lines.Nobody > 0 {
		note("%d of %d requests are of nobody: they count for nothing. %s", lines.Nobody, m.judged, r.userHint())
	}
	if m.failed > 0 {
		note("%d requests for manifests and media were answered with an error: they count for nothing.", m.failed)
	}
	switch {
	case m.hostless == 0:
	case r.host == "":
		note("%d lines do not say their host, and the config has several sites: they count for nothing.", m.hostless)
	case r.site != "":
		note("%d lines do not say their host: they are taken for those of %s.", m.hostless, r.site)
	}
	for _, source := range r.sources {
		if !r.gave[source] {
			note("No line says %s, by which map goes: what it has as default counts. %s", source, r.hint(source, "value"))
		}
	}
	if m.method > 0 {
		note("%d lines do not say their method: they are taken for GET.", m.method)
	}
	if m.agent > 0 {
		note("%d of %d requests have no User-Agent: clients behind one address are not told apart by it.", m.agent, m.judged)
	}
	if m.duration > 0 && m.duration >= m.judged/2 {
		note("%d of %d requests have no duration: they count for when they were answered, not for when they came.", m.duration, m.judged)
	}
	if m.unnamed > 0 {
		note("%d playbacks have no name in the log, such as a token or a session id. With playback auto each would have one; here "+
			"what a client asks for in a manifest's folder and below it is taken for one playback.", m.unnamed)
	}
	if m.filtered > 0 {
		note("%d requests have a token that a filter of the log has made unreadable: they count as if they had none.", m.filtered)
	}
	if report.Attempts > 0 {
		note("%d starts had been refused (429) when the log was written: what would have been watched then is not known.", report.Attempts)
	}
	for _, placeholder := range slices.Sorted(maps.Keys(r.set)) {
		if field := r.set[placeholder]; strings.Contains(strings.ToLower(field), "headers>") || strings.HasPrefix(field, "header.") {
			note("%s is taken from a header of the log (%s), which has what clients sent: if a server in front of the gate sets that header, its value is not there.", placeholder, field)
		}
	}
	if slices.ContainsFunc(r.gates, func(h *Handler) bool { return h.Mode != "observe" }) {
		note("A replay refuses nobody, whatever the option mode says: players went on as the log has it.")
	}
	for i := range report.Rules {
		if why := r.unanswered(report.Rules[i].Per); why != "" {
			report.Rules[i].Unanswered = why
			report.Incomplete = true
		}
	}
	for _, line := range r.said.lines {
		note("%s", line)
	}
	return &report
}

// unanswered is why the log does not say what a configured limit would do, if so: no
// gate that has it was told what it needs.
func (r *replayed) unanswered(per string) (why string) {
	for _, h := range r.gates {
		for _, rule := range h.read.rules {
			if rule.Per != per {
				continue
			}
			text, name := h.Labels[per], per
			if per == "device" {
				text = h.Device
			}
			if text == "" || r.gave[text] {
				text, name = rule.name, "limit"
			}
			if rule.number == nil && name == "limit" || r.gave[text] {
				return ""
			}
			why = fmt.Sprintf("not known: no line says %s. %s", text, r.hint(text, name))
		}
	}
	return why
}

// userHint says how a log gets to say who watches.
func (r *replayed) userHint() string { return r.hint(r.gates[0].User, "user") }

// hint says how a log gets to say what a placeholder is.
func (r *replayed) hint(placeholder, name string) string {
	switch {
	case r.set[spelled(placeholder)] != "":
		return fmt.Sprintf("Their lines have nothing in the field %s, which --set names.", r.set[spelled(placeholder)])
	case r.missing.text && name == "user":
		return "nginx writes $remote_user; where that is not who watches, write the variable that is at the end of its log_format, and give its position: --field user=<position>."
	case r.missing.text:
		return fmt.Sprintf("Write it at the end of nginx' log_format, and give its position: --set '%s=<position>'.", placeholder)
	}
	return fmt.Sprintf("If the log has it in a field, give that by --set '%s=<field>'. If not, write into the site: log_append %s %s, and replay with --set '%s=%s'.",
		placeholder, name, placeholder, placeholder, name)
}
