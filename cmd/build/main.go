// Command build makes a release binary of Caddy from a file that says which
// Caddy and which plugins: the JSON of xcaddy.Builder.
//
// A plugin that is replaced by a folder still wants a version, any one will do:
// without it go asks the proxy for the latest and may not get an answer.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/caddyserver/xcaddy"
)

func main() {
	config := flag.String("config", "xcaddy.json", "what to build: the JSON of xcaddy.Builder")
	output := flag.String("output", "caddy", "where to put the binary")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "build: unexpected argument %q\n", flag.Arg(0))
		flag.Usage()
		os.Exit(2)
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := build(ctx, *config, *output)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "build:", err)
		os.Exit(1)
	}
}

func build(ctx context.Context, config, output string) error {
	b, err := readConfig(config)
	if err != nil {
		return fmt.Errorf("reading config: %w", err)
	}
	if err := b.Build(ctx, output); err != nil {
		return fmt.Errorf("building %s: %w", output, err)
	}
	return nil
}

// readConfig reads a builder from a JSON file. A field that xcaddy does not
// know is an error, for a misspelt one would quietly build something else.
func readConfig(name string) (xcaddy.Builder, error) {
	var b xcaddy.Builder
	f, err := os.Open(name)
	if err != nil {
		return b, err
	}
	defer f.Close()

	dec := json.NewDecoder(f)
	dec.DisallowUnknownFields()
	if err := dec.Decode(&b); err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("the file is empty")
		}
		return b, fmt.Errorf("%s: %w", name, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return b, fmt.Errorf("%s: more text after the JSON object", name)
	}

	// xcaddy runs go in a folder of its own, where a relative path means nothing.
	dir, err := filepath.Abs(filepath.Dir(name))
	if err != nil {
		return b, err
	}
	for i, r := range b.Replacements {
		if isRelative(r.New.String()) {
			b.Replacements[i].New = xcaddy.ReplacementPath(filepath.Join(dir, r.New.String()))
		}
	}
	return b, nil
}

// isRelative tells a folder from a module path the way go.mod does.
func isRelative(path string) bool {
	return path == "." || path == ".." || strings.HasPrefix(path, "./") || strings.HasPrefix(path, "../")
}
