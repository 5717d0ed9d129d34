package streamguard

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

// misspelled is what the name of the thing looks like where it is not as
// CONTRIBUTING.md has it. A group is what is right after all.
var misspelled = map[string]*regexp.Regexp{
	"a header field is Stream-Guard-*":        regexp.MustCompile(`\b(?:(Stream-Guard-)|(?:\w+-)*Guard-)[A-Z]\w*`),
	"a metric is caddy_stream_guard_*":        regexp.MustCompile(`\b(?:(caddy_stream_guard_)|\w*stream_?guard_)(?:\w+_)?(?:total|seconds|bytes|duration)\b`),
	"no name begins with streamguard_":        regexp.MustCompile(`\bstreamguard_[a-z]\w*`),
	"the command is caddy stream-guard":       regexp.MustCompile(`\bcaddy (?:stream_guard|streamguard)\b`),
	"the directive is stream_guard":           regexp.MustCompile(`(?m)^[\t ]+(?:streamguard|stream-guard)(?:_token)? ?(?:@\w+ ?)?(?:\{|$)`),
	"a module of Caddy is named stream_guard": regexp.MustCompile(`\b(?:http\.handlers|admin\.api)\.(?:streamguard|stream-guard)`),
}

// TestOneSpelling holds all text to the spellings that CONTRIBUTING.md lists. The
// changelog has what was before, and so does the warning about it.
func TestOneSpelling(t *testing.T) {
	files := 0
	err := filepath.WalkDir(".", func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && path != "." && (strings.HasPrefix(e.Name(), ".") && e.Name() != ".github" || e.Name() == "node_modules" || path == "bin" || path == "caddymodule/testdata/verdicts"):
			return filepath.SkipDir
		case !e.Type().IsRegular() || path == "CHANGELOG.md" || path == "spelling_test.go" || path == "caddymodule/request.go":
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil || !utf8.Valid(text) || bytes.IndexByte(text, 0) >= 0 {
			return err
		}
		files++
		for rule, wrong := range misspelled {
			for _, m := range wrong.FindAllSubmatch(text, -1) {
				if len(m) == 1 || m[1] == nil {
					t.Errorf("%s: %q: %s", path, strings.TrimSpace(string(m[0])), rule)
				}
			}
		}
		return nil
	})
	if err != nil || files < 100 {
		t.Errorf("%d files, error: %v", files, err)
	}
}

// The README says with which Caddy and Go the module is built.
func TestReadmeNamesTheVersionsOfGoMod(t *testing.T) {
	for pattern, name := range map[string]string{`caddyserver/caddy/v2 (v[\d.]+)`: "Caddy ", `(?m)^go (\d+\.\d+)`: "Go "} {
		version := regexp.MustCompile(pattern).FindStringSubmatch(read(t, "go.mod"))
		if version == nil || !regexp.MustCompile(name+regexp.QuoteMeta(version[1])+`\b`).MatchString(read(t, "README.md")) {
			t.Errorf("README.md does not name %s%q", name, version)
		}
	}
}

// Functions that docs/architecture.md names for the steps of a request are there.
func TestArchitectureNamesFunctionsThatExist(t *testing.T) {
	var code strings.Builder
	files, err := filepath.Glob("*/*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		code.WriteString(read(t, file))
	}
	_, way, _ := strings.Cut(read(t, "docs/architecture.md"), "\n## The way of a request\n")
	way, _, _ = strings.Cut(way, "\n## ")
	names := regexp.MustCompile("`(?:[a-z]+\\.)?(\\w+)\\.(\\w+)`").FindAllStringSubmatch(way, -1)
	for _, m := range names {
		// A method of that type, or else something of that package.
		declared := `(?m)^(?:func \(\w+ \*?` + m[1] + `\) ` + m[2] + `\(|(?:func|type) ` + m[2] + `\b|\t` + m[2] + `$)`
		if !regexp.MustCompile(declared).MatchString(code.String()) {
			t.Errorf("there is no %s", m[0])
		}
	}
	if len(names) < 10 {
		t.Errorf("%d functions", len(names))
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
