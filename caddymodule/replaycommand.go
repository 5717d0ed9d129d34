package caddymodule

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/streamguard/streamguard/audience"
	"github.com/streamguard/streamguard/operate"
	"github.com/streamguard/streamguard/replay"
)

// replaying is what the command line says of a replay.
type replaying struct {
	site, from, to string
	fields, set    []string
	page           pageFlags
}

func (o *operator) replayCommand() *cobra.Command {
	var r replaying
	cmd := &cobra.Command{
		Use:   "replay --config CADDYFILE [ACCESS-LOG...]",
		Short: "Says what a config would have done with the requests of access logs",
		Long: `
Has each line of Caddy's JSON access log, or of one in nginx' combined format,
go through the gates of a config, at the time at which it was a request. It
needs no running Caddy, no Redis and no network, and changes nothing.

Without a file, or with -, it reads standard input. A log may be packed by gzip;
those of several nodes, or the parts of one log, are merged by their times.

Who watches is what the log has as stream_guard.user, or else as user_id, or
else what --set says of the placeholder that the option user has.`,
		RunE: func(cmd *cobra.Command, logs []string) error {
			cmd.SilenceUsage = true
			return o.show(func([]string) error { return o.replay(&r, logs) })(cmd, nil)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&r.site, "site", "", "Host of the only site to replay, and of lines that have none")
	flags.StringVar(&r.from, "from", "", "Leave out what came before this time, such as 2026-11-27T20:00:00Z or 2026-11-27")
	flags.StringVar(&r.to, "to", "", "Leave out what came at this time or later")
	flags.StringArrayVar(&r.fields, "field", nil, "Where lines have what their format does not say: name=position, or in JSON name=path>of>keys")
	flags.StringArrayVar(&r.set, "set", nil, "The field that has the value of a placeholder: {placeholder}=field")
	r.page.add(flags)
	// In place of those of the commands that ask a running Caddy.
	flags.StringVarP(&o.config, "config", "c", "", "Config file with the gates that the requests go through")
	for name, value := range map[string]*string{"address": &o.address, "store": &o.store} {
		flags.StringVar(value, name, "", "")
		_ = flags.MarkHidden(name)
	}
	return cmd
}

func (r *replaying) options() (o replay.Options, err error) {
	o.Format.Fields, err = pairs("field", r.fields)
	if err != nil {
		return o, err
	}
	for name := range o.Format.Fields {
		if err := replay.CheckField(name); err != nil {
			return o, fmt.Errorf("--field: %w", err)
		}
	}
	set, err := pairs("set", r.set)
	if err != nil {
		return o, err
	}
	o.Format.Set = make(map[string]string, len(set))
	for placeholder, field := range set {
		if !strings.HasPrefix(placeholder, "{") || !strings.HasSuffix(placeholder, "}") {
			return o, fmt.Errorf("--set: %q is not a placeholder such as {http.auth.user.id}", placeholder)
		}
		key := spelled(placeholder)
		if _, twice := o.Format.Set[key]; twice {
			return o, fmt.Errorf("--set: %s is given twice", key)
		}
		o.Format.Set[key] = field
	}
	if o.From, err = when("from", r.from); err != nil {
		return o, err
	}
	o.To, err = when("to", r.to)
	if err == nil && !o.To.IsZero() && !o.From.Before(o.To) {
		err = fmt.Errorf("--to: %s is not after --from, %s", r.to, r.from)
	}
	return o, err
}

// pairs reads flags of the form name=value.
func pairs(flag string, given []string) (map[string]string, error) {
	m := make(map[string]string)
	for _, g := range given {
		name, value, found := strings.Cut(g, "=")
		if !found || name == "" || value == "" {
			return nil, fmt.Errorf("--%s: %q is not of the form name=field", flag, g)
		}
		if _, twice := m[name]; twice {
			return nil, fmt.Errorf("--%s: %s is given twice", flag, name)
		}
		m[name] = value
	}
	return m, nil
}

func when(flag, s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	for _, format := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", time.DateTime, "2006-01-02T15:04", "2006-01-02 15:04", time.DateOnly} {
		if t, err := time.ParseInLocation(format, s, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("--%s: %q is not a time such as 2026-11-27T20:00:00Z or 2026-11-27", flag, s)
}

func (o *operator) replay(r *replaying, logs []string) error {
	switch {
	case o.config == "":
		return errors.New("--config: needed, for the gates that the log is to go through")
	case o.address != "":
		return fmt.Errorf("--address %s: a replay asks no running Caddy", o.address)
	case o.store != "":
		return fmt.Errorf("--store %s: a replay has a store of its own; --site chooses among the sites of the config", o.store)
	}
	options, err := r.options()
	if err == nil {
		err = r.page.check()
	}
	if err != nil {
		return err
	}
	if err := o.load(); err != nil {
		return fmt.Errorf("%s: %w", o.config, err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	caddyCtx, cancel := caddy.NewContext(caddy.Context{Context: ctx})
	defer cancel()
	if u, err := url.Parse(r.site); err == nil && u.Host != "" {
		r.site = u.Host
	}
	r.site = asciiHost(withoutPort(r.site))
	sites, err := newReplayed(caddyCtx, o.loaded, r.site, options.Format.Set)
	if err != nil {
		return fmt.Errorf("%s: %w", o.config, err)
	}
	if r.site != "" {
		options.Hosts = func(host string) bool { return hostFits(r.site, withoutPort(host)) }
	}
	switch {
	case len(logs) == 0 && term.IsTerminal(int(os.Stdin.Fd())):
		return errors.New("name an access log, or give it on standard input")
	case len(logs) == 0:
		logs = []string{"-"}
	}
	if !o.json && term.IsTerminal(int(os.Stderr.Fd())) {
		options.Progress = progress(time.Now())
	}
	// There is room, up to 1.75 GB, and each line is garbage soon.
	debug.SetGCPercent(300)
	debug.SetMemoryLimit(7 << 28)
	lines, err := replay.Run(ctx, logs, sites, sites.clock, &options)
	if options.Progress != nil {
		fmt.Fprint(os.Stderr, "\r\x1b[K")
	}
	if lines == nil {
		return err
	}
	why := sites.uncounted(lines)
	err = errors.Join(err, why)
	if why != nil && !o.json {
		operate.WriteLines(&o.out, lines)
		return err
	}
	err = errors.Join(err, sites.doubtful(lines))
	report := sites.report(lines, err)
	err = errors.Join(err, r.page.write([]audience.Report{*report}))
	switch {
	case r.page.file == "-":
	case o.json:
		o.print(nil, report)
	default:
		operate.WriteReport(&o.out, report)
	}
	return err
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

// progress shows on a terminal how far the log has been read.
func progress(began time.Time) func(replay.Progress) {
	var shown time.Time
	return func(p replay.Progress) {
		now := time.Now()
		if now.Sub(shown) < time.Second/5 {
			return
		}
		shown = now
		rate := float64(p.Lines) / now.Sub(began).Seconds()
		left := ""
		if p.All > 0 && p.Bytes > 0 {
			rest := time.Duration(float64(now.Sub(began)) * (float64(p.All)/float64(p.Bytes) - 1))
			left = fmt.Sprintf(", %d %%, %v left", 100*p.Bytes/p.All, max(rest, 0).Round(time.Second))
		}
		fmt.Fprintf(os.Stderr, "\r\x1b[K%d lines, %.0f a second, at %s%s", p.Lines, rate, operate.Clock(p.At), left)
	}
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
