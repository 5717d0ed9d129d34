// Package command is `caddy stream-guard`: it asks a running Caddy about the guards of users,
// and replays access logs.
package command

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/streamguard/streamguard/audience"
	"github.com/streamguard/streamguard/operate"
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "stream-guard",
		Usage: "list|revoke|top|check|report|observe|replay",
		Short: "Shows what users are watching, and ends it",
		Long: `
Asks the Caddy that is running, through its admin API, about the guards of
users: who is watching how many videos.

The admin address is that of --address, or else of the config given with
--config, or else $CADDY_ADMIN or Caddy's default.`,
		CobraFunc: setCommands,
	})
}

const (
	topEvery = 2 * time.Second // how long top waits before it asks again
	patience = time.Minute     // how long a Caddy may take to answer any other
)

// operator is how somebody at a terminal wants to be served.
type operator struct {
	out                      bytes.Buffer // what is to be shown
	address, config, adapter string       // as the flags say
	loaded                   []byte       // the config, if it has been read: that of "-" is there only once
	store                    string       // the only one of interest, or ""
	json                     bool
	patience                 time.Duration
}

func setCommands(cmd *cobra.Command) {
	o := &operator{patience: patience}
	cmd.Args = cobra.NoArgs
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	flags := cmd.PersistentFlags()
	flags.StringVar(&o.address, "address", "", "Address of the running Caddy's admin API")
	flags.StringVarP(&o.config, "config", "c", "", "Config file to take the admin address from")
	flags.StringVarP(&o.adapter, "adapter", "a", "", "Name of the adapter of the config file")
	flags.StringVar(&o.store, "store", "", "Name of the only store to ask, as check shows it")
	flags.BoolVar(&o.json, "json", false, "Print the answer as JSON")

	cmd.AddCommand(&cobra.Command{
		Use:   "list USER",
		Short: "Lists a user's guards",
		Args:  cobra.ExactArgs(1),
		RunE:  o.show(func(args []string) error { return o.list(args[0]) }),
	}, &cobra.Command{
		Use:   "revoke USER [ID]",
		Short: "Ends a user's playbacks, or the one with this guard id",
		Args:  cobra.RangeArgs(1, 2),
		RunE:  o.show(func(args []string) error { return o.revoke(args[0], args[1:]...) }),
	}, o.topCommand(), &cobra.Command{
		Use:   "check",
		Short: "Validates the config given with --config, and asks the running Caddy's stores how they do",
		Args:  cobra.NoArgs,
		RunE:  o.show(func([]string) error { return o.check() }),
	}, o.reportCommand(), o.observeCommand(), o.replayCommand())
}

// show is a command that does something and shows what there is to show of it,
// be it only a part.
func (o *operator) show(do func(args []string) error) func(*cobra.Command, []string) error {
	return func(_ *cobra.Command, args []string) error {
		err := do(args)
		_, unshown := o.out.WriteTo(os.Stdout)
		return errors.Join(err, unshown)
	}
}

func (o *operator) topCommand() *cobra.Command {
	var n int
	var once bool
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Shows who holds the most guards; on a terminal again and again until it is interrupted",
		Args:  cobra.NoArgs,
		RunE: o.show(func([]string) error {
			o.patience = math.MaxInt64 // there may be very many users
			if once || o.json || !term.IsTerminal(int(os.Stdout.Fd())) {
				return o.top(n)
			}
			for ; ; time.Sleep(topEvery) {
				err := o.top(n)
				if _, unshown := fmt.Printf("\x1b[H\x1b[2J%s\n", &o.out); err != nil || unshown != nil {
					o.out.Reset()
					return errors.Join(err, unshown)
				}
				o.out.Reset()
			}
		}),
	}
	cmd.Flags().IntVarP(&n, "number", "n", operate.DefaultTop, "How many users of each store to show")
	cmd.Flags().BoolVar(&once, "once", false, "Show it once, on a terminal too")
	return cmd
}

func (o *operator) list(user string) error {
	var answer []operate.Guards
	if err := o.ask(http.MethodGet, operate.UserPath(user), &answer); err != nil {
		return err
	}
	return o.printGuards(answer)
}

func (o *operator) revoke(user string, id ...string) error {
	path := operate.UserPath(user)
	if len(id) > 0 {
		path += "/guards/" + url.PathEscape(id[0])
	}
	var answer []operate.Guards
	if err := o.ask(http.MethodDelete, path, &answer); err != nil {
		return err
	}
	if !o.json {
		n := 0
		for _, s := range answer {
			n += len(s.Guards)
		}
		fmt.Fprintf(&o.out, "Revoked %s of %s:\n", operate.Count(int64(n), "guard"), operate.Printable(user))
	}
	return o.printGuards(answer)
}

func (o *operator) printGuards(answer []operate.Guards) error {
	var failed []error
	rows := [][]string{{"STORE", "GUARD", "STREAM", "DEVICE", "STATE", "SINCE", "UNTIL"}}
	for _, s := range answer {
		for _, g := range s.Guards {
			rows = append(rows, []string{s.Store, g.GuardID, g.StreamID, g.DeviceID, string(g.State), operate.Clock(g.CreatedAt), operate.Clock(g.RemovedAt)})
		}
		failed = append(failed, storeError(s.Store, s.Error))
	}
	o.print(rows, answer)
	return errors.Join(failed...)
}

func (o *operator) top(n int) error {
	var answer []operate.Top
	if err := o.ask(http.MethodGet, "/stream_guard/top?n="+strconv.Itoa(n), &answer); err != nil {
		return err
	}
	var failed []error
	rows := [][]string{{"STORE", "USER", "GUARDS", "ACTIVE", "SINCE"}}
	for _, s := range answer {
		for _, u := range s.Top {
			if user, err := url.PathUnescape(strings.TrimPrefix(u.Path, operate.Path+"users/")); err == nil {
				u.User = user
			}
			rows = append(rows, []string{s.Store, u.User, strconv.Itoa(u.Guards), strconv.Itoa(u.Active), operate.Clock(u.Since)})
		}
		failed = append(failed, storeError(s.Store, s.Error))
		if !o.json && s.Error == "" {
			fmt.Fprintf(&o.out, "%s held by %s in %s\n", operate.Count(int64(s.Guards), "guard"), operate.Count(int64(s.Users), "user"), operate.Printable(s.Store))
		}
	}
	o.print(rows, answer)
	return errors.Join(failed...)
}

func (o *operator) check() error {
	var answer struct {
		Config string           `json:"config,omitempty"` // "valid"
		Stores []operate.Health `json:"stores"`
	}
	if o.config != "" {
		if err := o.validateConfig(); err != nil {
			return fmt.Errorf("%s: %w", o.config, err)
		}
		answer.Config = "valid"
		if !o.json {
			fmt.Fprintf(&o.out, "%s is valid.\n", operate.Printable(o.config))
		}
	}
	if err := o.ask(http.MethodGet, "/stream_guard/stores", &answer.Stores); err != nil {
		return err
	}
	failed := make([]error, 0, len(answer.Stores))
	rows := [][]string{{"STORE", "SERVER", "ANSWERS", "TOOK", "LEASES", "LAST ERROR"}}
	for _, s := range answer.Stores {
		last := ""
		if s.LastError != nil {
			last = operate.Clock(s.LastError.At) + " " + s.LastError.Error
		}
		servers := s.Servers
		if servers == nil {
			servers = []operate.ServerHealth{{Answers: s.Answers, Took: s.Took}}
		}
		for _, server := range servers {
			rows = append(rows, []string{s.Store, server.Server, yes(server.Answers), milliseconds(server.Took), strconv.Itoa(s.Leases), cmp.Or(server.Error, last)})
		}
		failed = append(failed, storeError(s.Store, s.Error))
	}
	o.print(rows, answer)
	if !o.json {
		for _, s := range answer.Stores {
			o.sayObserving(s.Observing)
		}
	}
	return errors.Join(failed...)
}

// validateConfig is `caddy validate`.
func (o *operator) validateConfig() error {
	if err := o.load(); err != nil {
		return err
	}
	var c caddy.Config
	if err := caddy.StrictUnmarshalJSON(caddy.RemoveMetaFields(o.loaded), &c); err != nil {
		return err
	}
	return caddy.Validate(&c)
}

func (o *operator) reportCommand() *cobra.Command {
	var page pageFlags
	cmd := &cobra.Command{
		Use:   "report",
		Short: "Says who watches how much where mode is observe, and what limits would have refused",
		Args:  cobra.NoArgs,
		RunE:  o.show(func([]string) error { return o.report(&page) }),
	}
	page.add(cmd.Flags())
	return cmd
}

func (o *operator) report(page *pageFlags) error {
	if err := page.check(); err != nil {
		return err
	}
	var answer []audience.Report
	if err := o.ask(http.MethodGet, "/stream_guard/report", &answer); err != nil {
		return err
	}
	if len(answer) == 0 && !o.json {
		return errors.New("no stream_guard has mode observe: there is nothing to report")
	}
	if err := page.write(answer); err != nil || page.file == "-" {
		return err
	}
	if o.json {
		o.print(nil, answer)
		return nil
	}
	for i := range answer {
		operate.WriteReport(&o.out, &answer[i])
	}
	return nil
}

// print shows an answer: as rows, the first of them the head of the others, or
// as JSON.
func (o *operator) print(rows [][]string, answer any) {
	if o.json {
		b, err := json.MarshalIndent(answer, "", "\t")
		if err != nil {
			b = strconv.AppendQuote(nil, err.Error()) // they came as JSON: not reached
		}
		fmt.Fprintln(&o.out, operate.EscapeJSON(string(b)))
		return
	}
	if len(rows) == 1 {
		return
	}
	table := tabwriter.NewWriter(&o.out, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		for i := range row {
			row[i] = cmp.Or(operate.Printable(row[i]), "-")
		}
		fmt.Fprintln(table, strings.Join(row, "\t"))
	}
	table.Flush()
}

// load reads the config, once.
func (o *operator) load() (err error) {
	if o.loaded == nil {
		o.loaded, _, _, err = caddycmd.LoadConfig(o.config, o.adapter)
	}
	return err
}

// findCaddy finds out where the admin API is. With a config that has none,
// Caddy's default would be another Caddy's.
func (o *operator) findCaddy() (err error) {
	if o.address != "" {
		return nil
	}
	if o.config != "" {
		if err := o.load(); err != nil {
			return err
		}
		var c struct {
			Admin caddy.AdminConfig `json:"admin"`
		}
		if err := json.Unmarshal(o.loaded, &c); err != nil {
			return err
		}
		if c.Admin.Disabled {
			return fmt.Errorf("%s says admin off: a Caddy that runs it cannot be asked", operate.Printable(o.config))
		}
	}
	o.address, err = caddycmd.DetermineAdminAPIAddress("", o.loaded, o.config, o.adapter)
	return err
}

// ask calls the admin API.
func (o *operator) ask(method, path string, into any) error { return o.tell(method, path, "", into) }

// tell calls it with something to say.
func (o *operator) tell(method, path, body string, into any) error {
	if err := o.findCaddy(); err != nil {
		return fmt.Errorf("admin address: %w", err)
	}
	if o.store != "" {
		separator := "?"
		if strings.Contains(path, "?") {
			separator = "&"
		}
		path += separator + "store=" + url.QueryEscape(o.store)
	}
	answered := make(chan error, 1)
	go func() { answered <- call(o.address, method, path, body, into) }()
	select {
	case err := <-answered:
		return err
	case <-time.After(o.patience):
		return fmt.Errorf("no Caddy answers at %s: nothing came within %v", o.address, o.patience)
	}
}

func call(address, method, path, body string, into any) error {
	var says io.Reader
	if body != "" {
		says = strings.NewReader(body)
	}
	resp, err := caddycmd.AdminAPIRequest(address, method, path, nil, says)
	if err != nil {
		return asked(address, err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
		return fmt.Errorf("reading what %s answers: %w", address, err)
	}
	return nil
}

// asked makes sense of what AdminAPIRequest has only as text: an answer with a
// status from 400 on.
func asked(address string, err error) error {
	_, answer, answered := strings.Cut(err.Error(), "caddy responded with error: HTTP ")
	if !answered {
		return fmt.Errorf("no Caddy answers at %s: %w", address, err)
	}
	status, body, _ := strings.Cut(answer, ": ")
	var e struct {
		Error string `json:"error"`
	}
	switch {
	case json.Unmarshal([]byte(body), &e) == nil && e.Error != "":
		return errors.New(operate.Printable(strings.ReplaceAll(e.Error, "\n", "; ")))
	case status == strconv.Itoa(http.StatusNotFound):
		return fmt.Errorf("the Caddy at %s is built without stream_guard", address)
	}
	return errors.New(operate.Printable(answer))
}

func storeError(store, err string) error {
	if err == "" {
		return nil
	}
	return fmt.Errorf("store %s: %s", operate.Printable(store), operate.Printable(err))
}

func milliseconds(seconds float64) string {
	return strconv.FormatFloat(seconds*1000, 'f', 1, 64) + " ms"
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
