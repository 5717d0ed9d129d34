package caddymodule

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/pflag"

	"github.com/streamguard/streamguard/audience"
	"github.com/streamguard/streamguard/operate"
)

// pageFlags say whether a report is written as a page, too.
type pageFlags struct {
	file  string
	plain bool
}

func (p *pageFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&p.file, "html", "", "File to write the report to as a page, which asks for nothing else")
	flags.BoolVar(&p.plain, "plain", false, "Name users on that page, instead of hashes of them")
}

func (p *pageFlags) check() error {
	if p.plain && p.file == "" {
		return fmt.Errorf("--plain: is about the page of --html, which is not asked for")
	}
	return nil
}

// write writes the page, if one is asked for: all of it, or nothing. It tells of
// people, so nobody else may read it.
func (p *pageFlags) write(reports []audience.Report) error {
	if p.file == "" {
		return nil
	}
	var page bytes.Buffer
	if err := operate.WritePage(&page, reports, p.plain); err != nil {
		return fmt.Errorf("--html: %w", err)
	}
	if p.file == "-" {
		_, err := page.WriteTo(os.Stdout)
		return err
	}
	if info, err := os.Stat(p.file); err == nil && !info.Mode().IsRegular() { // such as a pipe
		if err := os.WriteFile(p.file, page.Bytes(), 0o600); err != nil {
			return fmt.Errorf("--html: %w", err)
		}
		return nil
	}
	f, err := os.CreateTemp(filepath.Dir(p.file), ".report-*") // with mode 0600
	if err != nil {
		return fmt.Errorf("--html: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = page.WriteTo(f)
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(f.Name(), p.file)
	}
	if err != nil {
		return fmt.Errorf("--html: %w", err)
	}
	return nil
}
