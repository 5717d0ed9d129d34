package caddymodule

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// FuzzCaddyfile writes anything between the directive's braces: it is an error
// or a handler whose JSON means the same again.
func FuzzCaddyfile(f *testing.F) {
	for _, name := range goldenFiles(f) {
		b, err := os.ReadFile(filepath.Join(goldenRoot, name))
		if err != nil {
			f.Fatal(err)
		}
		// gofmt-like indentation, which TestGolden insists on, ends the block.
		for line := range strings.Lines(string(b)) {
			indent, rest, found := strings.Cut(line, "stream_guard")
			if !found || strings.TrimSpace(indent) != "" || !strings.HasSuffix(rest, "{\n") {
				continue
			}
			_, body, _ := strings.Cut(string(b), line)
			body, _, _ = strings.Cut(body, "\n"+indent+"}\n")
			f.Add(body)
		}
	}
	f.Fuzz(func(t *testing.T, body string) {
		tokens, err := caddyfile.Tokenize([]byte("stream_guard {\n"+body+"\n}"), "Caddyfile")
		if err != nil {
			return
		}
		var h Handler
		if h.UnmarshalCaddyfile(caddyfile.NewDispenser(tokens)) != nil {
			return
		}
		once, err := json.Marshal(&h)
		if err != nil {
			t.Fatalf("writing JSON: %v", err)
		}
		var again Handler
		if err := caddy.StrictUnmarshalJSON(once, &again); err != nil {
			t.Fatalf("reading %s: %v", once, err)
		}
		twice, err := json.Marshal(&again)
		if err != nil {
			t.Fatalf("writing JSON again: %v", err)
		}
		if !bytes.Equal(once, twice) {
			t.Fatalf("once  %s\ntwice %s", once, twice)
		}
		again.setDefaults()
		_ = again.check() // right or wrong, it must not panic
	})
}

// FuzzJSON reads anything as the handler's JSON: it is an error, or options
// that are right or wrong.
func FuzzJSON(f *testing.F) {
	f.Add([]byte(`{"user":"{header.X-User-Id}","limit":"{header.X-Limit}","rules":[{"limit":2,"per":"class"}],"labels":{"class":"{query.c}"},"interval":"60s","ttl":90000000000}`))
	f.Add([]byte(`{"user":"{query.u}","stream":"path_regexp ^/(\\w+)/","playback":"stream","device":"{http.request.uri.query.d}","limits":[{"limit":null}],"cors":["https://a.example"],"kinds":[{"kind":"media","paths":[".ts","/x/*"]}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var h Handler
		if caddy.StrictUnmarshalJSON(b, &h) != nil {
			return
		}
		h.setDefaults()
		_ = h.check() // it must not panic
	})
}
