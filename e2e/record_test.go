package e2e

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

var recordInto = flag.String("record", "", "folder of traces to write anew (make traces)")

// traces is where the corpus is. Its README.md says what is in it.
const traces = root + "/testdata/traces"

// trace is what traces/index.json says of a file: what was done, not what a gate
// makes of it.
type trace struct {
	File      string   `json:"file"`
	Player    string   `json:"player"`
	Made      string   `json:"made"` // recorded, written
	Shows     string   `json:"shows"`
	Gate      string   `json:"gate"`                // none, auto, stream: the option playback; it observes
	Names     string   `json:"names"`               // token, cmcd, session, none: what the requests of a playback have in common
	UserField string   `json:"userField,omitempty"` // where the log has the user
	Playbacks int      `json:"playbacks"`
	Starts    int      `json:"starts"` // of titles
	Users     int      `json:"users"`
	Streams   int      `json:"streams"`
	AtOnce    int      `json:"atOnce"`  // playbacks, at most
	PerUser   int      `json:"perUser"` // the same, of one user
	Sources   []string `json:"sources,omitempty"`

	lines string // of the file
}

// truth counts what is played.
type truth struct {
	playbacks, starts, now, most, mostOfOne int
	users                                   map[string]int // what each plays now
	streams                                 map[string]bool
}

// begins says that a playback begins.
func (c *truth) begins(user, media string) {
	if c.users == nil {
		c.users, c.streams = make(map[string]int), make(map[string]bool)
	}
	c.playbacks++
	c.starts++
	c.now++
	c.users[user]++
	c.streams[streamOf(media)] = true
	c.most, c.mostOfOne = max(c.most, c.now), max(c.mostOfOne, c.users[user])
}

// moves says that a playback goes on with another title, under the name it has.
func (c *truth) moves(media string) {
	c.starts++
	c.streams[streamOf(media)] = true
}

// ends says that a playback is over.
func (c *truth) ends(user string) {
	c.now--
	c.users[user]--
}

func (c *truth) into(t *trace) {
	t.Playbacks, t.Starts, t.Users, t.Streams, t.AtOnce, t.PerUser = c.playbacks, c.starts, len(c.users), len(c.streams), c.most, c.mostOfOne
}

// streamOf is the title that a URL is of: two folders, as the gate has it where nothing
// else is said.
func streamOf(media string) string { return strings.Join(strings.Split(media, "/")[1:3], "/") }

// recording is a Caddy with an access log, in front of the stage, and what happens there.
type recording struct {
	truth
	*node
	site  string // which of recordedSites
	stage *stage
	file  string // the access log
}

// A site as an operator has it. What he could do without is left out of the log: the
// players' pages, answers' headers, and those of requests that say nothing about the
// player.
const recordedSite = `:8090 {
	log {
		output file %[1]s
		format filter {
			wrap json
			fields {
				resp_headers delete
				bytes_read delete
				request>proto delete
				request>remote_ip delete
				request>headers>Accept delete
				request>headers>Accept-Encoding delete
				request>headers>Accept-Language delete
				request>headers>Cache-Control delete
				request>headers>Connection delete
				request>headers>Icy-Metadata delete
				request>headers>Pragma delete
				request>headers>Priority delete
				request>headers>Sec-Ch-Ua delete
				request>headers>Sec-Ch-Ua-Mobile delete
				request>headers>Sec-Ch-Ua-Platform delete
				request>headers>Sec-Fetch-Dest delete
				request>headers>Sec-Fetch-Mode delete
				request>headers>Sec-Fetch-Site delete
				request>headers>Sec-Fetch-Storage-Access delete
				request>headers>Sec-Fetch-User delete
				request>headers>Upgrade-Insecure-Requests delete
			}
		}
	}
	log_skip /player/*
	map {host} {player} {
		127.0.0.1 {cookie.user}
		default {host}
	}
	map {header.X-User-Id} {viewer} {
		"" {player}
		default {header.X-User-Id}
	}
	%[2]s
	header >Access-Control-Allow-Headers "Range, CMCD-Object, CMCD-Request, CMCD-Session, CMCD-Status"
	reverse_proxy /ll/* %[3]s
	reverse_proxy /films/* %[3]s
	reverse_proxy %[4]s
}
`

// kinds of sites: their directives, how the log says who the user is, and the option
// playback.
var recordedSites = map[string]struct{ directives, userField, gate string }{
	"plain": {"log_append user {viewer}", "user", "none"},
	// The password is secret, hashed at the lowest cost.
	"basic":  {"basic_auth {\n\t\talice $2a$04$Y8QlnbJgcokb97v7hCLVf.wS9mHdcG60GjA6u6xOBs8OW0SWpA.7C\n\t}", "user_id", "none"},
	"auto":   {"stream_guard {\n\t\tuser {viewer}\n\t\tmode observe\n\t\tplayback auto\n\t}", "stream_guard.user", "auto"},
	"stream": {"stream_guard {\n\t\tuser {viewer}\n\t\tmode observe\n\t\tplayback stream\n\t}", "stream_guard.user", "stream"},
}

func newRecording(t *testing.T, kind string) *recording {
	t.Helper()
	r := &recording{site: kind, stage: newStage(t), file: filepath.Join(t.TempDir(), "access.log")}
	mux := http.NewServeMux()
	mux.Handle("/ll/{channel}/{file}", newLowLatency(t))
	mux.HandleFunc("/films/alien/alien.mp4", func(w http.ResponseWriter, req *http.Request) {
		path, err := longFilm()
		if err != nil {
			t.Error(err)
		}
		http.ServeFile(w, req, path)
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	r.node = start(t, fmt.Sprintf(recordedSite, r.file, recordedSites[kind].directives, server.URL, r.stage.url))
	return r
}

// longFilm is a film in one file that no player takes in one gulp.
var longFilm = sync.OnceValues(func() (string, error) {
	if _, err := build(); err != nil { // makes the folder that is removed when all is over
		return "", err
	}
	path := filepath.Join(built, "film.mp4")
	out, err := exec.Command("ffmpeg", "-v", "error", "-nostdin", "-f", "lavfi", "-i", "testsrc2=size=640x360:rate=25:duration=60,noise=alls=60:allf=t",
		"-c:v", "libx264", "-preset", "ultrafast", "-b:v", "5M", "-pix_fmt", "yuv420p", "-movflags", "+faststart", path).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("making a film: %w\n%s", err, out)
	}
	return path, nil
})

// asked is how many lines of the log have something in them.
func (r *recording) asked(part string) (times int) {
	log, err := os.ReadFile(r.file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return -1
	}
	for line := range strings.Lines(string(log)) {
		if strings.Contains(line, part) {
			times++
		}
	}
	return times
}

// asks waits until something has been asked for so many times from now on.
func (r *recording) asks(t *testing.T, part string, times int) {
	t.Helper()
	want := r.asked(part) + times
	eventually(t, "the player asks for "+part, func() bool { return r.asked(part) >= want })
}

// log ends the recording: what Caddy wrote, with ports as in the documentation.
func (r *recording) log(t *testing.T) string {
	t.Helper()
	r.stop()
	log, err := os.ReadFile(r.file)
	if err != nil {
		t.Fatal(err)
	}
	text := string(log)
	for origin, port := range map[string]string{"http://" + r.addr: ":8090", r.stage.url: ":8091"} {
		text = strings.ReplaceAll(text, origin[strings.LastIndex(origin, ":"):], port)
	}
	return text
}

// take is a trace to record.
type take struct {
	name, player, site, names, shows string
	act                              func(t *testing.T, r *recording)
}

func (k take) record(t *testing.T) trace {
	t.Helper()
	r := newRecording(t, k.site)
	k.act(t, r)
	if r.now != 0 || r.playbacks == 0 {
		t.Fatalf("%d of %d playbacks have not ended", r.now, r.playbacks)
	}
	site := recordedSites[k.site]
	made := trace{
		File: k.name + ".log", Player: version(t, k.player), Made: "recorded", Shows: k.shows,
		Gate: site.gate, Names: k.names, UserField: site.userField, lines: r.log(t),
	}
	r.into(&made)
	return made
}

var number = regexp.MustCompile(`\d+(\.\d+)+`)

// version is a player with its version.
func version(t *testing.T, player string) string {
	t.Helper()
	text, err := os.ReadFile("browser/package.json")
	if err != nil {
		t.Fatal(err)
	}
	var packages struct{ Dependencies map[string]string }
	if err := json.Unmarshal(text, &packages); err != nil {
		t.Fatal(err)
	}
	if library, ok := map[string]string{"hls": "hls.js", "dash": "dashjs", "shaka": "shaka-player", "video": "video.js"}[player]; ok {
		return library + " " + packages.Dependencies[library] + ", " + version(t, "native")
	}
	command := map[string][]string{
		"native": {"chromium", "--version"}, "ffmpeg": {"ffmpeg", "-version"}, "mpv": {"mpv", "--version"},
		"vlc": {"cvlc", "--version"}, "gst": {"gst-launch-1.0", "--version"},
	}[player]
	cmd := exec.Command(command[0], command[1:]...)
	if os.Getuid() == 0 && player == "vlc" {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}} // VLC does not run as root
	}
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", strings.Join(command, " "), err)
	}
	name := map[string]string{"native": "Chromium", "ffmpeg": "ffmpeg", "mpv": "mpv", "vlc": "VLC", "gst": "GStreamer"}[player]
	return name + " " + number.FindString(strings.ReplaceAll(string(out), command[0], ""))
}

// readIndex is what the corpus consists of.
func readIndex(t *testing.T, folder string) (list []trace) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(folder, "index.json"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(text, &list)
	}
	if err != nil {
		t.Fatal(err)
	}
	return list
}

var writing sync.Mutex // of the index

// writeTraces puts traces in the place of those of their kind that have the same
// names or, where all are made anew, are made no more.
func writeTraces(t *testing.T, folder, made string, all bool, written []trace) {
	t.Helper()
	writing.Lock()
	defer writing.Unlock()
	list := slices.DeleteFunc(readIndex(t, folder), func(old trace) bool {
		again := slices.ContainsFunc(written, func(w trace) bool { return w.File == old.File })
		if old.Made == made && all && !again {
			os.Remove(filepath.Join(folder, old.File))
		}
		return again || old.Made == made && all
	})
	for _, w := range written {
		list = append(list, w)
		if err := os.WriteFile(filepath.Join(folder, w.File), []byte(w.lines), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	slices.SortFunc(list, func(a, b trace) int { return cmp.Compare(a.File, b.File) })
	var text bytes.Buffer
	before := "[\n"
	for _, one := range list { // a line for each
		line, err := json.Marshal(one)
		if err != nil {
			t.Fatal(err)
		}
		text.WriteString(before)
		text.Write(line)
		before = ",\n"
	}
	text.WriteString("\n]\n")
	if err := os.WriteFile(filepath.Join(folder, "index.json"), text.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}
