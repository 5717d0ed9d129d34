package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/streamguard/streamguard/audience"
	"github.com/streamguard/streamguard/caddymodule"
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
	o.Format.Set, err = pairs("set", r.set)
	if err != nil {
		return o, err
	}
	for placeholder := range o.Format.Set {
		if !strings.HasPrefix(placeholder, "{") || !strings.HasSuffix(placeholder, "}") {
			return o, fmt.Errorf("--set: %q is not a placeholder such as {http.auth.user.id}", placeholder)
		}
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
	if !o.json && term.IsTerminal(int(os.Stderr.Fd())) {
		options.Progress = progress(time.Now())
	}
	sites, err := caddymodule.NewReplay(caddyCtx, o.loaded, r.site, options)
	if err != nil {
		return fmt.Errorf("%s: %w", o.config, err)
	}
	switch {
	case len(logs) == 0 && term.IsTerminal(int(os.Stdin.Fd())):
		return errors.New("name an access log, or give it on standard input")
	case len(logs) == 0:
		logs = []string{"-"}
	}
	// There is room, up to 1.75 GB, and each line is garbage soon.
	debug.SetGCPercent(300)
	debug.SetMemoryLimit(7 << 28)
	report, counted, err := sites.Run(ctx, logs)
	if options.Progress != nil {
		fmt.Fprint(os.Stderr, "\r\x1b[K")
	}
	switch {
	case report == nil:
		return err
	case !counted && !o.json:
		operate.WriteLines(&o.out, report.Lines)
		return err
	}
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
