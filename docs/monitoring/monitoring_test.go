// Package monitoring has tests of the rules and the dashboard next to it.
package monitoring

import (
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v3"
)

const (
	prefix     = "caddy_stream_guard_"
	runbooks   = "https://github.com/streamguard/streamguard/blob/main/docs/operations.md#"
	operations = "../operations.md"

	// What rates are taken over in tests, in place of minutes.
	window = "4s"
)

// ruleFile is what a file of rules has.
type ruleFile struct {
	Groups []struct {
		Name  string
		Rules []*rule
	}
}

type rule struct {
	Record, Alert, Expr string
	For                 model.Duration
	Labels, Annotations map[string]string
}

// rules are those of rules.yml.
func rules(t *testing.T) *ruleFile {
	t.Helper()
	f, err := os.Open("rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var groups ruleFile
	d := yaml.NewDecoder(f)
	d.KnownFields(true)
	if err := d.Decode(&groups); err != nil {
		t.Fatalf("rules.yml: %v", err)
	}
	return &groups
}

func each(groups *ruleFile, f func(*rule)) {
	for _, g := range groups.Groups {
		for _, r := range g.Rules {
			f(r)
		}
	}
}

func TestPrometheusAcceptsTheRules(t *testing.T) {
	out, err := exec.Command(tool(t, "promtool"), "check", "rules", "rules.yml").CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func alerts(t *testing.T) (names []string) {
	t.Helper()
	each(rules(t), func(r *rule) {
		if r.Alert != "" {
			names = append(names, r.Alert)
		}
	})
	if len(names) == 0 {
		t.Fatal("rules.yml has no alert")
	}
	return names
}

// panel is one of the dashboard's, a row if it has no targets.
type panel struct {
	Type    string
	Title   string
	Targets []struct{ Expr string }
}

func panels(t *testing.T) []panel {
	t.Helper()
	b, err := os.ReadFile("dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var d struct{ Panels []panel }
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatal(err)
	}
	shown := slices.DeleteFunc(d.Panels, func(p panel) bool { return p.Type == "row" })
	if len(shown) == 0 {
		t.Fatal("dashboard.json has no panel")
	}
	for _, p := range shown {
		if len(p.Targets) == 0 {
			t.Errorf("%s: no query", p.Title)
		}
	}
	return shown
}

// query is an expression of the dashboard as Grafana would send it.
func query(expr string) string {
	return strings.NewReplacer("$__rate_interval", window, "$instance", ".*").Replace(expr)
}

// metrics are the names of the time series that an expression selects.
func metrics(t *testing.T, expr string) (names []string) {
	t.Helper()
	e, err := parser.NewParser(parser.Options{}).ParseExpr(expr)
	if err != nil {
		t.Fatalf("%v in %s", err, expr)
	}
	parser.Inspect(e, func(n parser.Node, _ []parser.Node) error {
		if s, ok := n.(*parser.VectorSelector); ok {
			if s.Name == "" {
				t.Errorf("a selector without a name in %s", expr)
			}
			names = append(names, s.Name)
		}
		return nil
	})
	return names
}

// used are the metrics that rules and dashboard need, with where.
func used(t *testing.T) map[string]string {
	t.Helper()
	needed, recorded := make(map[string]string), make(map[string]bool)
	each(rules(t), func(r *rule) {
		if r.Record != "" {
			recorded[r.Record] = true
		}
	})
	each(rules(t), func(r *rule) {
		for _, m := range metrics(t, r.Expr) {
			needed[m] = "rule " + r.Record + r.Alert
		}
	})
	for _, p := range panels(t) {
		for _, target := range p.Targets {
			for _, m := range metrics(t, query(target.Expr)) {
				needed[m] = "panel " + p.Title
			}
		}
	}
	maps.DeleteFunc(needed, func(m, _ string) bool { return recorded[m] })
	return needed
}

// Whoever is woken by an alert finds what to do.
func TestEveryAlertHasARunbook(t *testing.T) {
	b, err := os.ReadFile(operations)
	if err != nil {
		t.Fatal(err)
	}
	headings := make(map[string]bool)
	for _, m := range regexp.MustCompile(`(?m)^### (Streamguard\w+)$`).FindAllStringSubmatch(string(b), -1) {
		headings[m[1]] = true
	}
	each(rules(t), func(r *rule) {
		if r.Alert == "" {
			return
		}
		if r.Annotations["summary"] == "" || r.Labels["severity"] == "" || r.For < model.Duration(30*time.Second) {
			t.Errorf("%s: summary, severity or for is missing", r.Alert)
		}
		if got, want := r.Annotations["runbook_url"], runbooks+strings.ToLower(r.Alert); got != want {
			t.Errorf("%s: runbook_url is %q, want %q", r.Alert, got, want)
		}
		if !headings[r.Alert] {
			t.Errorf("%s has no %q", operations, "### "+r.Alert)
		}
		delete(headings, r.Alert)
	})
	for h := range headings {
		t.Errorf("%s has a runbook for %s, which is no alert", operations, h)
	}
}

// expressions are those of operations.md.
func expressions(t *testing.T) (all []string) {
	t.Helper()
	b, err := os.ReadFile(operations)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile("(?ms)^ *```promql\n(.*?)^ *```$").FindAllStringSubmatch(string(b), -1) {
		all = append(all, m[1])
	}
	if len(all) == 0 {
		t.Fatalf("%s has no expression", operations)
	}
	return all
}

func TestExpressionsAreAboutDocumentedMetrics(t *testing.T) {
	table := documented(t)
	for _, expr := range expressions(t) {
		for _, m := range metrics(t, expr) {
			if !slices.Contains(table, m) {
				t.Errorf("%s is not documented: %s", m, expr)
			}
		}
	}
}

// documented are our metrics in the table of operations.md.
func documented(t *testing.T) (names []string) {
	t.Helper()
	b, err := os.ReadFile(operations)
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(b), "| metric, `"+prefix+"…` |")
	if !found {
		t.Fatalf("%s has no table of metrics", operations)
	}
	table, _, _ = strings.Cut(table, "\n\n")
	name := regexp.MustCompile("`([a-z_]+)(?:\\{[a-z,]+\\})?`")
	for row := range strings.Lines(table) {
		first, _, _ := strings.Cut(strings.TrimPrefix(row, "|"), "|")
		for _, m := range name.FindAllStringSubmatch(first, -1) {
			names = append(names, prefix+m[1])
		}
	}
	if len(names) == 0 {
		t.Fatalf("%s names no metrics", operations)
	}
	return names
}
