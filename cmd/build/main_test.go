package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRelativeReplacementsStartFromTheFile(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(t.TempDir())

	for given, want := range map[string]string{
		".":                       dir,
		"./plugin":                filepath.Join(dir, "plugin"),
		"../plugin":               filepath.Join(filepath.Dir(dir), "plugin"),
		"/src/plugin":             "/src/plugin",
		"example.com/fork v1.2.3": "example.com/fork v1.2.3",
	} {
		name := write(t, dir, `{"replacements": [{"old": "example.com/plugin", "new": "`+given+`"}]}`)
		b, err := readConfig(name)
		if err != nil {
			t.Errorf("%s: %v", given, err)
		} else if got := b.Replacements[0].New.String(); got != want {
			t.Errorf("%s became %s, want %s", given, got, want)
		}
	}
}

func TestBadConfigIsNamed(t *testing.T) {
	for config, want := range map[string]string{
		``:                                 "xcaddy.json: the file is empty",
		`{`:                                "xcaddy.json: unexpected EOF",
		`{"caddy_version": 2}`:             "caddy_version",
		`{"caddy_verison": "v2.11.9"}`:     `unknown field "caddy_verison"`,
		`{"plugins": [{"path": "a.com"}]}`: `unknown field "path"`,
		`{} {}`:                            "more text after the JSON object",
	} {
		_, err := readConfig(write(t, t.TempDir(), config))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got error %v, want one with %q", config, err, want)
		}
	}
}

func TestMissingConfigIsNamed(t *testing.T) {
	_, err := readConfig(filepath.Join(t.TempDir(), "absent.json"))
	if !os.IsNotExist(err) || !strings.Contains(err.Error(), "absent.json") {
		t.Errorf("got error %v", err)
	}
}

func TestReleaseConfigReads(t *testing.T) {
	b, err := readConfig("../../xcaddy.json")
	if err != nil {
		t.Fatal(err)
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	if got := b.Replacements[0].New.String(); got != root {
		t.Errorf("the plugin comes from %s, want %s", got, root)
	}
}

// Whoever has xcaddy itself builds the same, as the README says.
func TestReadmeBuildsWhatTheReleaseIs(t *testing.T) {
	b, err := readConfig("../../xcaddy.json")
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	p := b.Plugins[0]
	want := "xcaddy build " + b.CaddyVersion + " --with " + p.PackagePath + "@" + p.Version + "=."
	lines := 0
	for line := range strings.Lines(string(readme)) {
		if strings.HasPrefix(line, "xcaddy build ") {
			lines++
			if alone, _, _ := strings.Cut(strings.TrimSpace(line), " --with github.com/mholt/"); alone != want {
				t.Errorf("README.md has %s, want %s", line, want)
			}
		}
	}
	if lines != 2 {
		t.Errorf("README.md has %d lines for xcaddy", lines)
	}
}

func write(t *testing.T, dir, text string) string {
	t.Helper()
	name := filepath.Join(dir, "xcaddy.json")
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}
