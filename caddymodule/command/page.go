package command

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

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

// check finds out before the work is done whether the page can be written.
func (p *pageFlags) check() error {
	if p.plain && p.file == "" {
		return errors.New("--plain: is about the page of --html, which is not asked for")
	}
	if info, err := os.Stat(p.file); err == nil && info.IsDir() {
		return p.failed(syscall.EISDIR)
	}
	if p.file == "" || p.file == "-" || !p.replaces() {
		return nil
	}
	f, err := p.beside()
	if err != nil {
		return err
	}
	f.Close()
	return os.Remove(f.Name())
}

// replaces reports whether the page becomes a file: a pipe is written to, and so is what
// a link leads to.
func (p *pageFlags) replaces() bool {
	info, err := os.Lstat(p.file)
	return err != nil || info.Mode().IsRegular()
}

// beside is a file beside the page's, which nobody else may read.
func (p *pageFlags) beside() (*os.File, error) {
	f, err := os.CreateTemp(filepath.Dir(p.file), ".report-*")
	if failed, is := errors.AsType[*fs.PathError](err); is {
		err = failed.Err
	}
	return f, p.failed(err)
}

func (p *pageFlags) failed(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("--html: cannot write %s: %w", p.file, err)
}

// write writes the page, if one is asked for: all of it, or nothing. It tells of
// people, so nobody else may read it.
func (p *pageFlags) write(reports []audience.Report) error {
	if p.file == "" {
		return nil
	}
	var page bytes.Buffer
	if err := operate.WritePage(&page, reports, p.plain); err != nil {
		return p.failed(err)
	}
	if p.file == "-" {
		_, err := page.WriteTo(os.Stdout)
		return err
	}
	if !p.replaces() {
		return p.failed(os.WriteFile(p.file, page.Bytes(), 0o600))
	}
	f, err := p.beside()
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = page.WriteTo(f)
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(f.Name(), p.file)
	}
	if err == nil {
		fmt.Fprintf(os.Stderr, "Wrote %s\n", operate.Printable(p.file))
	}
	return p.failed(err)
}
