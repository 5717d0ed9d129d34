package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// In the README a block marked ```console is a session in a shell, against
// Caddyfile.example as `make run` serves it. A line that starts with "$ " is a
// command, carried on by the next line where it ends in a backslash. The lines
// up to the next command are all that it prints, where … is any text, of any
// number of lines. All blocks are one session of bash, so that variables last.
// A guard id, a time or a number of milliseconds stands for any other. A command
// that is to print nothing must succeed.
func TestReadmeExamples(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile(root + "/README.md")
	if err != nil {
		t.Fatal(err)
	}
	examples, err := sessions(string(b))
	if err != nil {
		t.Fatalf("README.md: %v", err)
	}
	start(t, example(t)).prints(t, "README.md", examples)
}

// prints runs examples of a document in one shell, in which the node is the
// Caddy that is running.
func (n *node) prints(t *testing.T, document string, examples []*readmeExample) {
	t.Helper()
	binary, err := build()
	if err != nil {
		t.Fatal(err)
	}
	var script strings.Builder
	fmt.Fprintf(&script, "export CADDY_ADMIN='%s' HOME='%s'\ncaddy() { '%s' \"$@\"; }\n", n.admin, t.TempDir(), binary)
	for _, e := range examples {
		// Errors count as output, as in a terminal.
		fmt.Fprintf(&script, "{ %s\n} 2>&1\nprintf '\\0%%d\\0' $?\n", n.local(e.command))
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", script.String())
	cmd.Dir = root
	// With all that it may have left in the background.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	kill := func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.Cancel = kill
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	err = cmd.Run()
	kill()
	said, readErr := os.ReadFile(out.Name())
	if readErr != nil {
		t.Fatal(readErr)
	}
	answers := strings.Split(string(said), "\x00")
	if len(answers) != len(examples)*2+1 {
		t.Fatalf("of %d commands %d came to their end: %v\n%s", len(examples), len(answers)/2, err, said)
	}
	for i, e := range examples {
		answer, code := tidy(answers[2*i]), answers[2*i+1]
		if want := tidy(n.local(e.output)); !matches(anyMoment(want), anyMoment(answer)) {
			t.Errorf("%s:%d: $ %s\nprints\n%s\nbut the document says\n%s", document, e.line, e.command, answer, want)
		} else if want == "" && code != "0" {
			t.Errorf("%s:%d: $ %s\nends with exit code %s", document, e.line, e.command, code)
		}
	}
}

type readmeExample struct {
	line            int
	command, output string
}

// sessions reads the examples of a README.
func sessions(readme string) (examples []*readmeExample, err error) {
	var inside bool
	var e *readmeExample // the one being read
	for i, line := range strings.Split(readme, "\n") {
		command, isCommand := strings.CutPrefix(line, "$ ")
		fence := strings.HasPrefix(line, "```")
		switch {
		case !inside:
			inside, e = strings.HasPrefix(line, "```console"), nil
		case e != nil && e.output == "" && strings.HasSuffix(e.command, `\`):
			if fence {
				return nil, fmt.Errorf("line %d: the block ends within a command", i+1)
			}
			e.command += "\n" + line
		case fence:
			inside = false
		case isCommand:
			e = &readmeExample{line: i + 1, command: command}
			examples = append(examples, e)
		case e == nil:
			return nil, fmt.Errorf("line %d: a console block does not begin with a command", i+1)
		default:
			e.output += line + "\n"
		}
	}
	if len(examples) == 0 {
		return nil, fmt.Errorf("there is no command in a ```console block")
	}
	return examples, nil
}

// matches reports whether a command's output is as the README says.
func matches(want, got string) bool {
	parts := strings.Split(want, "…")
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	return regexp.MustCompile(`(?s)^` + strings.Join(parts, ".*") + `$`).MatchString(got)
}

// Guard ids, times and milliseconds.
var momentary = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?|\d+\.\d ms *`)

// anyMoment makes outputs of different runs the same: any guard id, time or
// number of milliseconds stands for every other.
func anyMoment(s string) string { return momentary.ReplaceAllString(s, "@") }

// tidy leaves out what the eye does not see: spaces and carriage returns at the
// end of lines, empty lines at the end.
func tidy(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " \t\r")
	}
	return strings.Trim(strings.Join(lines, "\n"), "\n")
}

// The convention itself, with and without a fault.
func TestReadmeConvention(t *testing.T) {
	readme := "# T\n```sh\n$ not this\n```\n```console\n$ curl \\\n  -i x\nHTTP/1.1 200 OK\n…\n$ id=1\n```\n"
	examples, err := sessions(readme)
	if err != nil || len(examples) != 2 || examples[0].command != "curl \\\n  -i x" || *examples[1] != (readmeExample{line: 10, command: "id=1"}) {
		t.Errorf("%+v, %v", examples, err)
	}
	for want, gots := range map[string]map[string]bool{
		"a…c":      {"ac": true, "a\nb\nc": true, "abcd": false},
		"a.c":      {"a.c": true, "abc": false},
		"{…}\n…ok": {"{\"x\":1}\nvery ok": true, "{}": false},
		"":         {"": true, "a": false},
	} {
		for got, ok := range gots {
			if matches(want, got) != ok {
				t.Errorf("%q matches %q: %v, want %v", want, got, !ok, ok)
			}
		}
	}
	for _, faulty := range []string{"", "```sh\n$ x\n```\n", "```console\nout\n```\n", "```console\n$ x \\\n```\n"} {
		if examples, err := sessions(faulty); err == nil {
			t.Errorf("%q gives %+v", faulty, examples)
		}
	}
}
