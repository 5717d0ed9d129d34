package caddymodule

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var helpText = regexp.MustCompile(`Help:\s+"([^"]*)"|describe\("\w+", "([^"]*)"`)

// HELP texts have the words of all other pages: one of ours is a Caddy, and one of
// Redis a server.
func TestHelpTextsSayCaddy(t *testing.T) {
	texts := 0
	for _, folder := range []string{".", "storage"} {
		files, err := filepath.Glob(filepath.Join(folder, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			source, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range helpText.FindAllStringSubmatch(string(source), -1) {
				texts++
				if help := m[1] + m[2]; help == "" || strings.Contains(strings.ToLower(help), "node") {
					t.Errorf("%s: a metric is described as %q", file, help)
				}
			}
		}
	}
	if texts < 25 {
		t.Errorf("found %d texts", texts)
	}
}
