package caddymodule

import (
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/streamguard/streamguard/caddymodule/storage"
)

const configurationDoc = "../docs/configuration.md"

// TestConfigurationIsDocumented holds the tables of docs/configuration.md to
// the code: to the syntax in the comments of UnmarshalCaddyfile, which
// TestOptionsAreDocumented holds to what is accepted, to the names in JSON, and
// to the defaults.
func TestConfigurationIsDocumented(t *testing.T) {
	doc := readDoc(t)
	defaults := &Handler{}
	defaults.setDefaults()

	for _, section := range []struct {
		heading  string
		receiver string
		value    any
	}{
		{"## Options of stream_guard", "Handler", *defaults},
		{"## Options of store memory", "Memory", storage.Memory{}},
		{"## Options of store redis", "Redis", storage.Redis{}},
		{"### Options of tls", "RedisTLS", storage.RedisTLS{}},
	} {
		rows := table(t, doc, section.heading)
		var syntax, names []string
		byName := make(map[string][]string)
		for _, row := range rows {
			if len(row) != 5 || row[3] == "" || row[4] == "" {
				t.Errorf("%s: row %q does not say what it is for or when to change it", section.heading, row)
				continue
			}
			for s := range strings.SplitSeq(row[0], "`, `") {
				syntax = append(syntax, normal(s))
			}
			names = append(names, code(row[1]))
			byName[code(row[1])] = row
		}
		same(t, section.heading+": syntax", syntax, caddyfileSyntax(t, section.receiver))
		same(t, section.heading+": JSON", names, jsonNames(reflect.TypeOf(section.value)))

		v := reflect.ValueOf(section.value)
		for field, value := range v.Fields() {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			row := byName[name]
			if name == "" || row == nil || value.IsZero() {
				continue
			}
			if got, want := code(row[2]), written(value); got != want {
				t.Errorf("%s: default of %s is %q, in the code %q", section.heading, name, got, want)
			}
		}
	}
}

// same compares two lists without their order.
func same(t *testing.T, what string, documented, inCode []string) {
	t.Helper()
	for _, s := range documented {
		if !slices.Contains(inCode, s) {
			t.Errorf("%s: %q is documented but not in the code", what, s)
		}
	}
	for _, s := range inCode {
		if !slices.Contains(documented, s) {
			t.Errorf("%s: %q is not documented", what, s)
		}
	}
	if len(documented) != len(inCode) {
		t.Errorf("%s: %d documented, %d in the code", what, len(documented), len(inCode))
	}
}

// caddyfileSyntax are the lines within the braces in the comment of the
// receiver's UnmarshalCaddyfile, or of a block within them; a block is "tls { ... }".
func caddyfileSyntax(t *testing.T, receiver string) (lines []string) {
	t.Helper()
	switch receiver {
	case "Memory":
		return []string{"memory [<name>]"}
	case "Redis":
		lines = append(lines, "redis [<url>]")
	}
	block, depth := "", "\t\t"
	if receiver == "RedisTLS" {
		receiver, block, depth = "Redis", "tls {", "\t\t\t"
	}
	inside := block == ""
	for line := range strings.Lines(unmarshalComment(t, receiver)) {
		text := normal(line)
		switch {
		case text == block:
			inside = true
		case inside && text != "}" && strings.HasPrefix(line, depth) && !strings.HasPrefix(line, depth+"\t"):
			if strings.HasSuffix(text, " {") {
				text += " ... }"
			}
			lines = append(lines, text)
		}
	}
	return lines
}

func jsonNames(typ reflect.Type) (names []string) {
	for field := range typ.Fields() {
		if name, _, _ := strings.Cut(field.Tag.Get("json"), ","); name != "" {
			names = append(names, name)
		}
	}
	return names
}

// written is a default as the documentation has it.
func written(v reflect.Value) string {
	s := fmt.Sprint(v.Interface())
	if v.Kind() == reflect.Int64 {
		s = short(v.Int())
	}
	return s
}

// short is a duration in whole seconds, 90s and not 1m30s.
func short(ns int64) string { return fmt.Sprintf("%ds", ns/1e9) }

// normal is a text without markup and with single spaces.
func normal(s string) string { return strings.Join(strings.Fields(code(s)), " ") }

func code(s string) string { return strings.Trim(strings.TrimSpace(s), "`") }

func readDoc(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(configurationDoc)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// table is the first one under a heading, without its head.
func table(t *testing.T, doc, heading string) (rows [][]string) {
	t.Helper()
	_, section, found := strings.Cut(doc, "\n"+heading+"\n")
	if !found {
		t.Fatalf("%s has no %q", configurationDoc, heading)
	}
	for line := range strings.Lines(section) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") {
			if len(rows) > 0 {
				break
			}
			continue
		}
		cells := strings.Split(strings.ReplaceAll(strings.Trim(line, "|"), `\|`, "\x00"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(strings.ReplaceAll(cells[i], "\x00", "|"))
		}
		rows = append(rows, cells)
	}
	if len(rows) < 3 {
		t.Fatalf("%s has no table under %q", configurationDoc, heading)
	}
	return rows[2:]
}

// With the documented stream, all URLs of a title are one, those of another are not.
func TestStreamsOfPackagers(t *testing.T) {
	for _, row := range table(t, readDoc(t), "## Streams of packagers") {
		of, err := parseStream(code(row[2]))
		if err != nil {
			t.Fatal(err)
		}
		streams := make(map[string]string)
		for path := range strings.FieldsSeq(strings.ReplaceAll(row[1], "`", "")) {
			for _, title := range []string{"alien", "heat"} {
				r := httptest.NewRequest("GET", strings.ReplaceAll(path, "alien", title), nil)
				stream := of(r, nil)
				if streams[stream] == "" {
					streams[stream] = title
				}
				if stream == "" || streams[stream] != title {
					t.Errorf("%s: %s is %q as is %s", row[0], r.URL, stream, streams[stream])
				}
			}
		}
		if len(streams) != 2 {
			t.Errorf("%s: two titles are %v", row[0], streams)
		}
	}
}

// The placeholders in the documentation, in the handler's own comment, and
// those that give something.
func TestPlaceholdersAreDocumented(t *testing.T) {
	var documented []string
	for _, row := range table(t, readDoc(t), "## Placeholders") {
		documented = append(documented, code(row[0]))
	}
	source, err := os.ReadFile("handler.go")
	if err != nil {
		t.Fatal(err)
	}
	inComment := regexp.MustCompile(`\{http\.stream_guard\.\w+\}`).FindAllString(string(source), -1)
	same(t, "placeholders", documented, inComment)
	for _, p := range documented {
		if _, ok := new(visit).placeholder(strings.Trim(p, "{}")); !ok {
			t.Errorf("%s is not set", p)
		}
	}
}

// Every Caddyfile in the documentation is one that Caddy would run.
func TestDocumentedCaddyfilesAreValid(t *testing.T) {
	credentials := t.TempDir()
	writeCertificate(t, credentials)
	for _, name := range [][2]string{{"cert.pem", "redis-ca.pem"}, {"cert.pem", "redis.pem"}, {"key.pem", "redis-key.pem"}} {
		if err := os.Link(filepath.Join(credentials, name[0]), filepath.Join(credentials, name[1])); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("CREDENTIALS_DIRECTORY", credentials)
	t.Setenv("REDIS_PASSWORD", goldenSecret)
	t.Setenv("SENTINEL_PASSWORD", goldenSecret)
	data := t.TempDir()
	t.Setenv("XDG_DATA_HOME", data)
	t.Setenv("XDG_CONFIG_HOME", data)
	t.Setenv("HOME", data)

	docs, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := 0
	for _, file := range append(docs, "../README.md") {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for i, part := range strings.Split(string(b), "```caddyfile\n")[1:] {
			caddyfile, _, closed := strings.Cut(part, "```")
			if !closed {
				t.Errorf("%s: block %d has no end", file, i+1)
			}
			blocks++
			if _, err := adaptAndValidate(t, caddyfile); err != nil {
				t.Errorf("%s: block %d: %v\n%s", file, i+1, err, caddyfile)
			}
		}
	}
	if blocks < 10 {
		t.Errorf("found %d Caddyfiles", blocks)
	}
}
