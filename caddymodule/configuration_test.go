package caddymodule

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"

	"github.com/streamguard/streamguard/caddymodule/storage"
	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/playback"
	"github.com/streamguard/streamguard/redisstore"
	"github.com/streamguard/streamguard/redisstore/redistest"
)

const configurationDoc = "../docs/configuration.md"

// TestConfigurationIsDocumented holds docs/configuration.md to the code. Each
// option has a section: its syntax as the comments of UnmarshalCaddyfile have it,
// which TestOptionsAreDocumented holds to what is accepted; an example in JSON;
// its default; and when to change it.
func TestConfigurationIsDocumented(t *testing.T) {
	doc := readDoc(t)
	defaults := &Handler{}
	defaults.setDefaults()
	elsewhere := map[string]string{ // defaults that are not set in the struct
		"limits":     fmt.Sprint(guard.DefaultLimit),
		"timeout":    short(int64(redisstore.DefaultTimeout)),
		"key_prefix": redisstore.DefaultKeyPrefix,
	}
	examples := make(map[string][]string) // names in JSON that have one, by the type they are of
	for _, room := range []struct {
		heading  string
		receiver string
		value    any
	}{
		{"## Options of stream_guard", "Handler", *defaults},
		{"## Store memory", "Memory", storage.Memory{}},
		{"## Store redis", "Redis", storage.Redis{}},
		{"## Block tls", "RedisTLS", storage.RedisTLS{}},
	} {
		var syntax, names []string
		for _, o := range optionSections(t, doc, room.heading) {
			syntax = append(syntax, o.syntax...)
			example := reflect.New(reflect.TypeOf(room.value))
			d := json.NewDecoder(strings.NewReader("{" + o.json + "}"))
			d.DisallowUnknownFields()
			if err := d.Decode(example.Interface()); err != nil {
				t.Errorf("%s %s: JSON %s: %v", room.heading, o.name, o.json, err)
			}
			before := len(names)
			names = append(names, namesGiven(example.Elem(), examples)...)
			if len(names) == before {
				t.Errorf("%s %s: JSON %s sets nothing", room.heading, o.name, o.json)
				continue
			}
			want := elsewhere[names[before]]
			if v := fieldNamed(reflect.ValueOf(room.value), names[before]); want == "" && !v.IsZero() {
				want = written(v)
			}
			if want != "" && o.byDefault != want {
				t.Errorf("%s %s: default is %q, in the code %q", room.heading, o.name, o.byDefault, want)
			}
		}
		same(t, room.heading+": syntax", syntax, caddyfileSyntax(t, room.receiver))
		same(t, room.heading+": JSON", names, jsonNames(reflect.TypeOf(room.value)))
	}
	slices.Sort(examples["Limit"])
	limits := slices.DeleteFunc(jsonNames(reflect.TypeFor[Limit]()), func(name string) bool { return name == "values" }) // nobody judges them yet
	same(t, "limits in JSON", slices.Compact(examples["Limit"]), limits)
	slices.Sort(examples["Kinds"])
	same(t, "kinds in JSON", slices.Compact(examples["Kinds"]), jsonNames(reflect.TypeFor[Kinds]()))
}

// The words that an option may be are those of its syntax, and each is explained.
func TestWordsOfOptionsAreDocumented(t *testing.T) {
	documented := make(map[string]optionSection)
	for _, o := range optionSections(t, readDoc(t), "## Options of stream_guard") {
		documented[o.name] = o
	}
	for _, w := range new(Handler).words() {
		o, choices := documented[w.option], strings.Join(w.allowed, "|")
		if w.placeholder {
			choices += "|<placeholder>"
		}
		same(t, w.option, o.syntax, []string{w.option + " " + choices})
		for _, word := range w.allowed {
			if !strings.Contains(o.text, "`"+word+"`") {
				t.Errorf("%s: the text does not say what `%s` is", w.option, word)
			}
		}
	}
	for kind, extensions := range map[string][]string{"manifests": playback.ManifestExtensions, "media": playback.MediaExtensions} {
		if list := kind + ": `" + strings.Join(extensions, " ") + "`"; !strings.Contains(documented["kind"].text, list) {
			t.Errorf("kind: the text does not have %s", list)
		}
	}
}

// optionSection is a section about an option.
type optionSection struct {
	name      string
	syntax    []string
	json      string
	byDefault string
	text      string
}

var optionForm = regexp.MustCompile("(?s)^\\n```\\n(.+?)\\n```\\n\\n- JSON: `([^\\n]+)`\\n- Default: ([^\\n]+)\\n\\n(.+)$")

// optionSections are the sections under a heading.
func optionSections(t *testing.T, doc, heading string) (options []optionSection) {
	t.Helper()
	_, rest, found := strings.Cut(doc, "\n"+heading+"\n")
	if !found {
		t.Fatalf("%s has no %q", configurationDoc, heading)
	}
	rest, _, _ = strings.Cut(rest, "\n## ")
	for _, section := range strings.Split(rest, "\n### ")[1:] {
		name, body, _ := strings.Cut(section, "\n")
		m := optionForm.FindStringSubmatch(body)
		if m == nil || !strings.Contains(m[4], "**Change it when") {
			t.Errorf("%s %s: the section has not its syntax, JSON, default and when to change it", heading, name)
			continue
		}
		o := optionSection{name: name, json: m[2], byDefault: m[3], text: m[4]}
		if _, after, ok := strings.Cut(m[3], "`"); ok { // `90s`, or more in some case
			o.byDefault, _, _ = strings.Cut(after, "`")
		}
		for line := range strings.SplitSeq(m[1], "\n") {
			o.syntax = append(o.syntax, normal(line))
		}
		if option, _, _ := strings.Cut(o.syntax[len(o.syntax)-1], " "); option != name {
			t.Errorf("%s %s: the syntax is that of %s", heading, name, option)
		}
		options = append(options, o)
	}
	return options
}

// namesGiven are the names of the fields that an example sets. It notes those of
// structs in its lists by their type.
func namesGiven(example reflect.Value, inLists map[string][]string) (names []string) {
	for field, value := range example.Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if name == "" || value.IsZero() {
			continue
		}
		names = append(names, name)
		if value.Kind() == reflect.Slice && value.Type().Elem().Kind() == reflect.Struct {
			of := value.Type().Elem().Name()
			for i := range value.Len() {
				inLists[of] = append(inLists[of], namesGiven(value.Index(i), inLists)...)
			}
		}
	}
	return names
}

// fieldNamed is the field of a struct with this name in JSON.
func fieldNamed(v reflect.Value, name string) reflect.Value {
	for field, value := range v.Fields() {
		if n, _, _ := strings.Cut(field.Tag.Get("json"), ","); n == name {
			return value
		}
	}
	return reflect.Value{}
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

// short is a duration in seconds or milliseconds, 90s and not 1m30s.
func short(ns int64) string {
	if ns%1e9 != 0 {
		return fmt.Sprintf("%dms", ns/1e6)
	}
	return fmt.Sprintf("%ds", ns/1e9)
}

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
	var inComment []string
	for _, m := range regexp.MustCompile("(?m)^// `(\\{http\\.stream_guard\\.\\w+\\})` \\|").FindAllSubmatch(source, -1) {
		inComment = append(inComment, string(m[1]))
	}
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

	for _, c := range documentedCaddyfiles(t) {
		if _, err := adaptAndValidate(t, c.text); err != nil {
			t.Errorf("%s: %v\n%s", c.where, err, c.text)
		}
	}
}

// documentedCaddyfile is a Caddyfile in the documentation.
type documentedCaddyfile struct{ where, text string }

func documentedCaddyfiles(t *testing.T) (all []documentedCaddyfile) {
	t.Helper()
	docs, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range append(docs, "../README.md") {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for i, part := range strings.Split(string(b), "```caddyfile\n")[1:] {
			text, _, closed := strings.Cut(part, "```")
			if !closed {
				t.Errorf("%s: block %d has no end", file, i+1)
			}
			all = append(all, documentedCaddyfile{fmt.Sprintf("%s: block %d", file, i+1), text})
		}
	}
	if len(all) < 10 {
		t.Errorf("found %d Caddyfiles", len(all))
	}
	return all
}

// The JSON beside a Caddyfile is what Caddy makes of it, and can be loaded as it is.
func TestDocumentedJSONIsItsCaddyfile(t *testing.T) {
	t.Setenv("REDIS_PASSWORD", goldenSecret)
	_, section, _ := strings.Cut(readDoc(t), "## A Caddyfile and the same in JSON\n")
	var blocks []string
	for _, language := range []string{"caddyfile", "json"} {
		_, block, _ := strings.Cut(section, "```"+language+"\n")
		block, _, closed := strings.Cut(block, "```\n")
		if !closed {
			t.Fatalf("there is no block of %s", language)
		}
		blocks = append(blocks, block)
	}
	adapted, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(blocks[0]), nil)
	if err != nil {
		t.Fatal(err)
	}
	var want, got any
	if err := errors.Join(json.Unmarshal(adapted, &want), json.Unmarshal([]byte(blocks[1]), &got)); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the Caddyfile is\n%s", pretty(t, adapted))
	}

	s := serve(t, "SITE {\nrespond ok\n}") // any, for a port
	_, port, _ := net.SplitHostPort(s.addr)
	redis := redistest.Start(t)
	config := strings.NewReplacer(":8090", ":"+port, "10.0.0.1:6379", redis.Addr, "origin:8080", upstream(t), `"{env.REDIS_PASSWORD}"`, `""`).Replace(blocks[1])
	config = `{"admin": {"disabled": true, "config": {"persist": false}}, "logging": {"logs": {"default": {"level": "ERROR"}}},` + strings.TrimPrefix(config, "{")
	if err := caddy.Load([]byte(config), true); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the site before answers no more", func() bool {
		_, body := s.call(200, "GET", "/logo.png")
		return body == "media"
	})
	for n, status := range []int{200, 200, 200, 429} {
		s.call(status, "GET", fmt.Sprintf("/vod/%d/1.ts", n), "X-Device", fmt.Sprint("tv", n))
	}
}

// upstream is the address of an origin that has everything.
func upstream(t *testing.T) string {
	t.Helper()
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "media") }))
	t.Cleanup(origin.Close)
	return origin.Listener.Addr().String()
}

// Whoever copies a Caddyfile from the documentation has nothing in front of the gate
// that sees paths with a token in them.
func TestDocumentedCaddyfilesCutTokensFirst(t *testing.T) {
	example, err := os.ReadFile("../Caddyfile.example")
	if err != nil {
		t.Fatal(err)
	}
	gates := 0
	for _, c := range append(documentedCaddyfiles(t), documentedCaddyfile{"../Caddyfile.example", string(example)}) {
		first := "" // directive of the site
		for line := range strings.Lines(c.text) {
			directive, isDirective := strings.CutPrefix(strings.TrimRight(line, "\n"), "\t")
			switch {
			case line == "\n":
			case !isDirective: // the site itself, or its end
				first = ""
			case first == "" && directive != "" && directive[0] != '#':
				first = directive
			}
			if strings.HasPrefix(directive, "stream_guard ") {
				gates++
				if first != "stream_guard_token" {
					t.Errorf("%s: %q is before stream_guard_token", c.where, first)
				}
			}
		}
	}
	if gates < 10 {
		t.Errorf("found %d gates", gates)
	}
}
