package command

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/streamguard/streamguard/operate"
)

func (o *operator) observeCommand() *cobra.Command {
	var sites []string
	var undo bool
	cmd := &cobra.Command{
		Use:   "observe",
		Short: "Has the running Caddy refuse nobody, at once and until its config changes",
		Long: `
Has all gates of the running Caddy observe, or those of --site and --store, as
mode observe does, without a reload: from now on nobody is refused by a limit.

It is for this Caddy only, and lasts until its config changes or it is taken
back with --undo. check says which gates observe by it.`,
		Args: cobra.NoArgs,
		RunE: o.show(func([]string) error { return o.observe(undo, sites) }),
	}
	cmd.Flags().StringArrayVar(&sites, "site", nil, "The only site, by its host or where it listens; may be given several times")
	cmd.Flags().BoolVar(&undo, "undo", false, "Take it back: mode is what the config says again")
	return cmd
}

func (o *operator) observe(undo bool, sites []string) error {
	method, path, body := http.MethodPut, operate.Path+"mode", `{"mode":"observe"}`
	said := "From now on nobody is refused by these, on this Caddy, until its config changes or caddy stream-guard observe --undo:"
	if undo {
		method, body = http.MethodDelete, ""
		said = "From now on these do what the config says:"
	}
	if len(sites) > 0 {
		path += "?" + url.Values{"site": sites}.Encode()
	}
	var answer []operate.Gate
	if err := o.tell(method, path, body, &answer); err != nil {
		return err
	}
	rows := [][]string{{"STORE", "MODE", "OBSERVING SINCE", "SITES"}}
	for _, g := range answer {
		since := ""
		if g.ObservingSince != nil {
			since = operate.Clock(*g.ObservingSince)
		}
		rows = append(rows, []string{g.Store, g.Mode, since, strings.Join(g.Sites, " ")})
	}
	if !o.json {
		fmt.Fprintln(&o.out, said)
	}
	o.print(rows, answer)
	return nil
}

// sayObserving says which gates observe because an operator has said so.
func (o *operator) sayObserving(gates []operate.Gate) {
	for _, g := range gates {
		fmt.Fprintf(&o.out, "An operator has said that nobody is refused at %s, since %s and until the config changes.\n",
			operate.Printable(strings.Join(g.Sites, " ")), operate.Clock(*g.ObservingSince))
	}
}
