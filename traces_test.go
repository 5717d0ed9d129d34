package streamguard

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// traceEntry is what testdata/traces/index.json says of a trace. Its README.md says
// what the fields mean.
type traceEntry struct {
	File, Player, Made, Shows, Gate, Names, UserField  string
	Playbacks, Starts, Users, Streams, AtOnce, PerUser int
	Sources                                            []string
}

// traceLine is what has to be in a line of Caddy's access log.
type traceLine struct {
	Level    string   `json:"level"`
	Logger   string   `json:"logger"`
	TS       *float64 `json:"ts"`
	Duration *float64 `json:"duration"`
	Status   *int     `json:"status"`
	UserID   string   `json:"user_id"`
	User     string   `json:"user"`
	Request  struct {
		Method   string              `json:"method"`
		Host     string              `json:"host"`
		URI      string              `json:"uri"`
		ClientIP string              `json:"client_ip"`
		Headers  map[string][]string `json:"headers"`
	} `json:"request"`
	Gate *struct {
		User string `json:"user"`
	} `json:"stream_guard"`
}

// user is who the line says it was.
func (l *traceLine) user(field string) string {
	switch {
	case field == "user":
		return l.User
	case field == "user_id":
		return l.UserID
	case l.Gate != nil:
		return l.Gate.User
	}
	return ""
}

const tracesFolder = "testdata/traces"

var (
	traceHost = regexp.MustCompile(`^(127\.\d+\.\d+\.\d+:8090|media\.example\.com)$`)
	// Paths and addresses of the machine that a trace was recorded on.
	ofTheMachine = regexp.MustCompile(`/(tmp|home|root|work|var|usr)/|10\.\d+\.\d+\.\d+|192\.168\.`)
)

// A trace is what Caddy writes: one line for each request, written when it was over.
func TestTracesAreAccessLogs(t *testing.T) {
	index := traceIndex(t)
	total := len(read(t, tracesFolder+"/index.json"))
	for _, entry := range index {
		text, err := os.ReadFile(filepath.Join(tracesFolder, entry.File))
		if err != nil {
			t.Error(err)
			continue
		}
		total += len(text)
		if lines := bytes.Count(text, []byte("\n")); lines == 0 || lines > 110 || len(text) > 64<<10 {
			t.Errorf("%s has %d lines and %d bytes", entry.File, lines, len(text))
		}
		if found := ofTheMachine.Find(text); found != nil {
			t.Errorf("%s has %q of the machine it was recorded on", entry.File, found)
		}
		var last float64
		users := make(map[string]bool)
		for line := range strings.Lines(string(text)) {
			var l traceLine
			if err := json.Unmarshal([]byte(line), &l); err != nil {
				t.Errorf("%s: %v in %s", entry.File, err, line)
				break
			}
			r := l.Request
			if l.Level == "" || !strings.HasPrefix(l.Logger, "http.log.access") || l.TS == nil || l.Duration == nil || l.Status == nil ||
				r.Method == "" || !strings.HasPrefix(r.URI, "/") || r.ClientIP == "" || len(r.Headers["User-Agent"]) != 1 || !traceHost.MatchString(r.Host) {
				t.Errorf("%s: no line of an access log: %s", entry.File, line)
				break
			}
			// Caddy takes the time before its turn to write.
			if *l.TS < last-0.02 || *l.Duration < 0 {
				t.Errorf("%s: written out of turn: %s", entry.File, line)
			}
			last = max(last, *l.TS)
			if user := l.user(entry.UserField); user != "" {
				users[user] = true
			}
		}
		if len(users) != entry.Users {
			t.Errorf("%s has the users %v in the field %s, the index says %d", entry.File, users, entry.UserField, entry.Users)
		}
	}
	if total > 1_500_000 {
		t.Errorf("the traces have %d bytes", total)
	}
}

// What is in the folder is in the index, and the other way round.
func TestTracesAreListed(t *testing.T) {
	var listed []string
	for _, e := range traceIndex(t) {
		listed = append(listed, e.File)
		switch {
		case e.Player == "" || e.Shows == "" || e.Playbacks < 1 || e.Starts < e.Playbacks || e.Users < 1 || e.Streams < 1 ||
			e.AtOnce < 1 || e.AtOnce > e.Playbacks || e.PerUser < 1 || e.PerUser > e.AtOnce:
			t.Errorf("the index says %+v", e)
		case e.Made == "recorded" == strings.HasPrefix(e.File, "written-") || e.Made == "written" != (len(e.Sources) > 0):
			t.Errorf("%s is %s, from %q", e.File, e.Made, e.Sources)
		case !slices.Contains([]string{"recorded", "written"}, e.Made),
			!slices.Contains([]string{"none", "auto", "stream"}, e.Gate),
			!slices.Contains([]string{"none", "token", "cmcd", "session"}, e.Names),
			!slices.Contains([]string{"user", "user_id", "stream_guard.user"}, e.UserField),
			(e.Gate == "auto") != (e.Names == "token"), (e.Gate == "none") == (e.UserField == "stream_guard.user"):
			t.Errorf("the index says %+v", e)
		}
	}
	files, err := filepath.Glob(tracesFolder + "/*.log")
	if err != nil {
		t.Fatal(err)
	}
	for i := range files {
		files[i] = filepath.Base(files[i])
	}
	slices.Sort(files)
	if !slices.Equal(files, listed) {
		t.Errorf("there are %q\nand the index has %q", files, listed)
	}
}

func traceIndex(t *testing.T) (index []traceEntry) {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(read(t, tracesFolder+"/index.json")))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&index); err != nil {
		t.Fatal(err)
	}
	return index
}
