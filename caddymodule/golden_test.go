package caddymodule

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	goflag "flag" // flag is ours
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/standard"

	"github.com/streamguard/streamguard/caddymodule/storage"
)

var update = goflag.Bool("update", false, "rewrite what the golden files expect")

const (
	goldenRoot = "testdata/golden"
	goldenLine = "----------\n"

	goldenSecret = "s3cret" // every password in the golden files
)

// TestGolden reads testdata/golden: what a user writes, a line, and what comes
// of it. In config that is the routes that `caddy adapt --pretty` makes of a
// Caddyfile that `caddy validate` accepts. In error it is what either of them
// says; it has to name the option, which is the file's name up to the hyphen.
// In json a handler is read from JSON and written again.
func TestGolden(t *testing.T) {
	data := t.TempDir()
	t.Setenv("XDG_DATA_HOME", data)
	t.Setenv("XDG_CONFIG_HOME", data)
	t.Setenv("HOME", data)
	tlsDir := t.TempDir()
	writeCertificate(t, tlsDir)
	t.Setenv("TLS_DIR", tlsDir)
	t.Setenv("REDIS_PASSWORD", goldenSecret)

	for _, name := range goldenFiles(t) {
		t.Run(strings.TrimSuffix(name, ".txt"), func(t *testing.T) {
			file := filepath.Join(goldenRoot, name)
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			input, want, _ := strings.Cut(string(b), goldenLine)
			before := len(storage.InUse())

			kind, base, _ := strings.Cut(name, "/")
			var got string
			if kind == "json" {
				got, err = readHandler(t, input)
			} else {
				got, err = adaptAndValidate(t, input)
			}
			if err != nil {
				got = strings.ReplaceAll(err.Error(), tlsDir, "{env.TLS_DIR}")
				if option, _, _ := strings.Cut(base, "-"); !namesOption(got, option) {
					t.Errorf("the error does not name %s: %s", option, got)
				}
				if strings.Contains(got, goldenSecret) {
					t.Errorf("the error gives a password away: %s", got)
				}
			}
			if kind != "json" && (err != nil) != (kind == "error") {
				t.Errorf("%s: error: %v", name, err)
			}
			if left := len(storage.InUse()); left != before {
				t.Errorf("%d stores in use, %d before", left, before)
			}
			got += "\n"
			switch {
			case got == want:
			case *update:
				if err := os.WriteFile(file, []byte(input+goldenLine+got), 0o644); err != nil {
					t.Fatal(err)
				}
			default:
				t.Errorf("got\n%s\nwant\n%s\n(go test ./caddymodule -run TestGolden -update, if that is how it should be)", got, want)
			}
		})
	}
	if left, err := os.ReadDir(data); err != nil || len(left) > 0 {
		t.Errorf("validating has left %v in the home directory, error: %v", left, err)
	}
}

func goldenFiles(t testing.TB) (names []string) {
	t.Helper()
	root := os.DirFS(goldenRoot)
	err := fs.WalkDir(root, ".", func(name string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			names = append(names, name)
		}
		return err
	})
	if err != nil || len(names) == 0 {
		t.Fatalf("no golden files, error: %v", err)
	}
	return names
}

// adaptAndValidate returns the configuration of a Caddyfile.
func adaptAndValidate(t *testing.T, input string) (string, error) {
	t.Helper()
	config, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(input), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		return "", err
	}
	for _, w := range warnings {
		t.Errorf("warning: %v", w)
	}
	if err := validate(t, config); err != nil {
		return "", err
	}
	return routes(t, config), nil
}

// namesOption reports whether an error has the option in a place of its own.
func namesOption(err, option string) bool {
	err = strings.ReplaceAll(err, "stream_guard", "")
	return regexp.MustCompile(`\b` + option + `\b`).MatchString(err)
}

// routes are those of each server in turn.
func routes(t *testing.T, config []byte) string {
	t.Helper()
	var c struct {
		Apps struct {
			HTTP struct {
				Servers map[string]struct{ Routes json.RawMessage }
			}
		}
	}
	if err := json.Unmarshal(config, &c); err != nil {
		t.Fatal(err)
	}
	servers := c.Apps.HTTP.Servers
	var out []string
	for _, name := range slices.Sorted(maps.Keys(servers)) {
		out = append(out, pretty(t, servers[name].Routes))
	}
	return strings.Join(out, "\n")
}

// readHandler returns a handler's JSON as it is understood.
func readHandler(t *testing.T, input string) (string, error) {
	t.Helper()
	config := fmt.Sprintf(`{"apps":{"http":{"servers":{"srv0":{"listen":[":8080"],"routes":[{"handle":[%s]}]}}}}}`, input)
	if err := validate(t, []byte(config)); err != nil {
		return "", err
	}
	var h Handler
	if err := json.Unmarshal([]byte(input), &h); err != nil {
		return "", err
	}
	b, err := json.Marshal(&h)
	if err != nil {
		t.Fatal(err)
	}
	return pretty(t, b), nil
}

// validate is `caddy validate`, without an admin endpoint, logs or a home.
func validate(t *testing.T, config []byte) error {
	t.Helper()
	var cfg caddy.Config
	if err := caddy.StrictUnmarshalJSON(config, &cfg); err != nil {
		t.Fatal(err)
	}
	cfg.Admin = &caddy.AdminConfig{Disabled: true}
	cfg.Logging = &caddy.Logging{Logs: map[string]*caddy.CustomLog{
		"default": {BaseLog: caddy.BaseLog{WriterRaw: json.RawMessage(`{"output":"discard"}`)}},
	}}
	cfg.StorageRaw = caddyconfig.JSON(map[string]string{"module": "file_system", "root": t.TempDir()}, nil)
	return caddy.Validate(&cfg)
}

func pretty(t *testing.T, b []byte) string {
	t.Helper()
	var out bytes.Buffer
	if err := json.Indent(&out, b, "", "\t"); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// writeCertificate writes cert.pem, which is its own authority, and key.pem;
// other-key.pem, which does not fit; and text.pem, which is nothing of all that.
func writeCertificate(t *testing.T, dir string) {
	t.Helper()
	write := func(name, kind string, der []byte) {
		b := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"other-key.pem", "key.pem"} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		write(name, "PRIVATE KEY", der)
		template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true}
		if der, err = x509.CreateCertificate(rand.Reader, template, template, key.Public(), key); err != nil {
			t.Fatal(err)
		}
		write("cert.pem", "CERTIFICATE", der)
	}
	if err := os.WriteFile(filepath.Join(dir, "text.pem"), []byte("no certificate\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestOptionsAreDocumented holds the comments of UnmarshalCaddyfile to the
// fields that the JSON has and to what the Caddyfile accepts.
func TestOptionsAreDocumented(t *testing.T) {
	inCaddyfile := map[string]string{ // what a Caddyfile says one by one, or on another's line
		"addresses": "address", "labels": "label", "limits": "limit", "kinds": "kind", "user_fold": "user", "device_required": "device",
	}
	for _, directive := range []struct {
		receiver string
		types    []reflect.Type
		write    string // a directive with the option %s
	}{
		{"Handler", []reflect.Type{reflect.TypeFor[Handler]()}, "stream_guard {\n%s\n}"},
		{"Redis", []reflect.Type{reflect.TypeFor[storage.Redis](), reflect.TypeFor[storage.RedisTLS]()}, "stream_guard {\nstore redis {\n%s\n}\n}"},
	} {
		documented := documentedOptions(t, directive.receiver)
		var fields []string
		for _, typ := range directive.types {
			for field := range typ.Fields() {
				name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
				if name == "" {
					continue
				}
				if other, ok := inCaddyfile[name]; ok {
					name = other
				}
				fields = append(fields, name)
				if !slices.Contains(documented, name) {
					t.Errorf("%s.UnmarshalCaddyfile does not document %s", directive.receiver, name)
				}
			}
		}
		if directive.receiver == "Handler" && !slices.Equal(documented, optionNames) {
			t.Errorf("an unrecognized option is told of %q, the documentation has %q", optionNames, documented)
		}
		for _, option := range documented {
			if !slices.Contains(fields, option) {
				t.Errorf("%s.UnmarshalCaddyfile documents %s, which is no field", directive.receiver, option)
			}
			err := unmarshalDirective(t, fmt.Sprintf(directive.write, option))
			errTLS := unmarshalDirective(t, fmt.Sprintf(directive.write, "tls {\n"+option+"\n}"))
			if notAnOption(err, option) && notAnOption(errTLS, option) {
				t.Errorf("%s.UnmarshalCaddyfile documents %s but says: %v", directive.receiver, option, err)
			}
		}
	}
}

func notAnOption(err error, option string) bool {
	return err != nil && strings.Contains(err.Error(), fmt.Sprintf("option %q", option))
}

func unmarshalDirective(t *testing.T, s string) error {
	t.Helper()
	tokens, err := caddyfile.Tokenize([]byte(s), "Caddyfile")
	if err != nil {
		t.Fatal(err)
	}
	return new(Handler).UnmarshalCaddyfile(caddyfile.NewDispenser(tokens))
}

// documentedOptions are the first words within the directive's braces in the
// comment of the receiver's UnmarshalCaddyfile.
func documentedOptions(t *testing.T, receiver string) (options []string) {
	t.Helper()
	for line := range strings.Lines(unmarshalComment(t, receiver)) {
		if words := strings.Fields(line); strings.HasPrefix(line, "\t\t") && words[0] != "}" {
			options = append(options, words[0])
		}
	}
	if options == nil {
		t.Fatalf("found no options in the comment of (*%s).UnmarshalCaddyfile", receiver)
	}
	return options
}

// unmarshalComment is the comment of the receiver's UnmarshalCaddyfile.
func unmarshalComment(t *testing.T, receiver string) string {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	files = append(files, "storage/redis.go")
	for _, file := range files {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range f.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok || fn.Name.Name != "UnmarshalCaddyfile" || fn.Recv == nil {
				continue
			}
			if star, ok := fn.Recv.List[0].Type.(*ast.StarExpr); ok && star.X.(*ast.Ident).Name == receiver {
				return fn.Doc.Text()
			}
		}
	}
	t.Fatalf("found no (*%s).UnmarshalCaddyfile", receiver)
	return ""
}
