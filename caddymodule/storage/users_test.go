package storage

import (
	"os"
	"strings"
	"testing"
)

// The command that docs/admin.md gives for it, which the tests of that page run,
// prints what logs show.
func TestLogsShowWhatSha256sumPrints(t *testing.T) {
	page, err := os.ReadFile("../../docs/admin.md")
	if err != nil {
		t.Fatal(err)
	}
	const command = "$ printf alice | sha256sum | cut -c 1-16\n"
	if want := command + Hash.Of("alice") + "\n"; !strings.Contains(string(page), want) {
		t.Errorf("docs/admin.md has no %q", want)
	}
}
