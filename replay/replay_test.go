package replay

import (
	"compress/gzip"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Both formats, with everything that loggers do to them.
func TestParse(t *testing.T) {
	at := time.Date(2026, 11, 27, 20, 0, 1, 250e6, time.UTC)
	for _, c := range []struct {
		name, line string
		format     Format
		want       string // begun, user, client, method, host, URI, status, agent; "" where it is another line
		err        string
	}{
		{name: "Caddy", line: `{"level":"info","ts":1795809601.5,"msg":"handled request","request":{"remote_ip":"10.0.0.1","client_ip":"10.0.0.2","method":"GET","host":"a.example","uri":"/a.ts?x=1","headers":{"User-Agent":["box"]}},"user_id":"alice","duration":0.25,"status":200}`,
			want: "20:00:01.25 alice 10.0.0.2 GET a.example /a.ts?x=1 200 box"},
		{name: "the gate's user goes before", line: `{"ts":1795809601.5,"request":{"client_ip":"10.0.0.2","method":"GET","uri":"/a.ts"},"user_id":"alice","stream_guard":{"user":"2bd806c97f0e00af"},"duration":"250ms","status":200}`,
			want: "20:00:01.25 2bd806c97f0e00af 10.0.0.2 GET  /a.ts 200 "},
		{name: "times as text", line: `{"ts":"2026-11-27T21:00:01.500+0100","request":{"remote_ip":"10.0.0.1","method":"GET","uri":"/a.ts"},"duration":0.25,"status":206}`,
			want: "20:00:01.25  10.0.0.1 GET  /a.ts 206 "},
		{name: "wall clock", line: `{"ts":"2026/11/27 20:00:01.500","request":{"remote_ip":"10.0.0.1","method":"GET","uri":"/a.ts"},"duration":0.25,"status":206}`,
			want: "20:00:01.25  10.0.0.1 GET  /a.ts 206 "},
		{name: "nanoseconds", line: `{"ts":1795809601500000000,"request":{"remote_ip":"10.0.0.1","method":"GET","uri":"/a.ts"},"duration":250000000,"status":206}`,
			want: "20:00:01.25  10.0.0.1 GET  /a.ts 206 "},
		{name: "milliseconds", line: `{"ts":1795809601500,"request":{"remote_ip":"10.0.0.1","method":"GET","uri":"/a.ts"},"duration":0.25,"status":206}`,
			want: "20:00:01.25  10.0.0.1 GET  /a.ts 206 "},
		{name: "microseconds", line: `{"ts":1795809601500000,"request":{"remote_ip":"10.0.0.1","method":"GET","uri":"/a.ts"},"duration":0.25,"status":206}`,
			want: "20:00:01.25  10.0.0.1 GET  /a.ts 206 "},
		{name: "a year of five digits", line: `{"ts":"9999-12-31T23:00:00-05:00","request":{"method":"GET","uri":"/a.ts"},"status":200}`, err: "out of range"},
		{name: "a header that a filter has made one text", line: `{"ts":1795809601.25,"request":{"method":"GET","uri":"/a.ts","headers":{"user-agent":"box","Cookie":5}},"status":200}`,
			want: "20:00:01.25   GET  /a.ts 200 box"},
		{name: "console", line: "2026/11/27 20:00:01.250\tinfo\thttp.log.access\thandled request\t" + `{"ts":1795809601.25,"request":{"method":"GET","uri":"/a.ts"},"status":200}`,
			want: "20:00:01.25   GET  /a.ts 200 "},
		{name: "another message", line: `{"level":"info","ts":1795809601.5,"msg":"serving initial configuration"}`},
		{name: "no time", line: `{"request":{"method":"GET","uri":"/a.ts"},"status":200}`, err: "ts"},
		{name: "broken", line: `{"ts":1795809601.5,"request":{"met`, err: "unexpected end"},
		{name: "a time of no format", line: `{"ts":"yesterday","request":{"method":"GET","uri":"/a.ts"},"status":200}`, err: "yesterday"},
		{name: "a duration of months", line: `{"ts":1795809601.5,"duration":1e300,"request":{"method":"GET","uri":"/a.ts"},"status":200}`, err: "1e300"},
		{name: "JSON of one's own", line: `{"when":"2026-11-27T20:00:01.25Z","req":{"line":"/a.ts"},"who":"alice","m":"GET"}`,
			format: Format{Fields: map[string]string{"time": "when", "uri": "req>line", "user": "who", "method": "m"}},
			want:   "20:00:01.25 alice  GET  /a.ts 0 "},

		{name: "nginx", line: `10.0.0.1 - alice [27/Nov/2026:21:00:01 +0100] "GET /a.ts?x=1 HTTP/1.1" 200 12 "-" "a \x22box\x22"`,
			want: `20:00:01 alice 10.0.0.1 GET  /a.ts?x=1 200 a "box"`},
		{name: "nginx, with more", line: `10.0.0.1 - - [27/Nov/2026:20:00:01 +0000] "GET /a.ts HTTP/1.1" 200 12 "-" "box" 1795809601.500 0.250 a.example "alice"`,
			format: Format{Fields: map[string]string{"time": "10", "duration": "11", "host": "12", "user": "13"}},
			want:   "20:00:01.25 alice 10.0.0.1 GET a.example /a.ts 200 box"},
		{name: "nginx, a user with spaces", line: `2001:db8::1 - bob smith jr [27/Nov/2026:20:00:01 +0000] "GET /a.ts HTTP/1.1" 200 12 "-" "box"`,
			want: "20:00:01 bob smith jr 2001:db8::1 GET  /a.ts 200 box"},
		{name: "a byte order mark", line: "\ufeff" + `{"ts":1795809601.25,"request":{"method":"GET","uri":"/a.ts"},"status":200}`,
			want: "20:00:01.25   GET  /a.ts 200 "},
		{name: "nginx, of no request", line: `10.0.0.1 - - [27/Nov/2026:20:00:01 +0000] "\x16\x03\x01" 400 0 "-" "-"`},
		{name: "nginx, cut off", line: `10.0.0.1 - - [27/Nov/2026:20:00:`, err: "fields"},
		{name: "binary", line: "\x00\x01\x02", err: "fields"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, ok, err := c.format.Parse([]byte(c.line))
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("error %v, want one with %q", err, c.err)
				}
				return
			}
			if err != nil || ok != (c.want != "") {
				t.Fatal(ok, err)
			}
			if !ok {
				return
			}
			got := fmt.Sprintf("%s %s %s %s %s %s %d %s", l.Begun.UTC().Format("15:04:05.999"), l.User, l.Client, l.Method, l.Host, l.URI, l.Status, l.Header.Get("User-Agent"))
			if got != c.want || l.Begun.UTC().Truncate(24*time.Hour) != at.Truncate(24*time.Hour) {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

// A field that a placeholder takes its value from may be anywhere in a line.
func TestSet(t *testing.T) {
	format := Format{
		Fields: map[string]string{"plan": "10"},
		Set:    map[string]string{"{plan}": "request>headers>X-Plan", "{app}": "app.name"},
	}
	l, _, err := format.Parse([]byte(`{"ts":1,"app":{"name":"tv"},"request":{"uri":"/","headers":{"X-Plan":["gold"]}}}`))
	if err != nil || l.Set["{plan}"] != "gold" || l.Set["{app}"] != "tv" {
		t.Errorf("%v %v", l.Set, err)
	}
	format = Format{Set: map[string]string{"{http.auth.user.id}": "11"}}
	l, _, err = format.Parse([]byte(`10.0.0.1 - - [27/Nov/2026:20:00:01 +0000] "GET /a.ts HTTP/1.1" 200 12 "-" "box" x "bob"`))
	if err != nil || l.Set["{http.auth.user.id}"] != "bob" {
		t.Errorf("%v %v", l.Set, err)
	}
}

// recorder is a Site that writes down what happens.
type recorder struct {
	clock    *Clock
	began    time.Time
	happened []string
}

func (r *recorder) Begin() { r.began = r.clock.Now() }
func (r *recorder) Request(l *Line) Became {
	r.note("request", l)
	return Judged
}
func (r *recorder) Goes(l *Line)  { r.note("goes", l) }
func (r *recorder) Ended(l *Line) { r.note("ended", l) }
func (r *recorder) Sweep()        {}
func (r *recorder) note(what string, l *Line) {
	r.happened = append(r.happened, fmt.Sprintf("%v %s %s", r.clock.Now().Sub(time.Unix(1000, 0)), what, l.URI))
}

func line(at, duration float64, uri string) string {
	return fmt.Sprintf(`{"ts":%f,"duration":%f,"request":{"method":"GET","host":"a.example","uri":"%s"},"status":200}`, 1000+at, duration, uri) + "\n"
}

func replayed(t *testing.T, o Options, logs ...string) (*recorder, []string) {
	t.Helper()
	var names []string
	for i, log := range logs {
		name := filepath.Join(t.TempDir(), fmt.Sprint(i, ".log"))
		if err := os.WriteFile(name, []byte(log), 0o600); err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	clock := new(Clock)
	r := &recorder{clock: clock}
	lines, err := Run(context.Background(), names, r, clock, &o)
	if err != nil {
		t.Fatal(err)
	}
	return r, append(r.happened, fmt.Sprintf("read %d, judged %d, other %d, elsewhere %d, outside %d, broken %d, late %d, all %v", lines.Read, lines.Judged, lines.Other, lines.Elsewhere, lines.Outside, lines.Broken, lines.Late, lines.Exhausted), lines.BrokenAt)
}

func check(t *testing.T, got []string, want ...string) {
	t.Helper()
	got[len(got)-1] = filepath.Base(got[len(got)-1])
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// Lines are written when an answer is over; the requests came before that.
func TestRequestsComeInTheirOwnOrder(t *testing.T) {
	_, got := replayed(t, Options{},
		line(5, 0, "/b")+line(6, 3, "/a")+line(130, 0, "/d")+line(131, 100, "/c"), // c began long before it was written
		line(5.5, 0, "/second-node"))
	check(t, got, "3s request /a", "5s request /b", "5.5s request /second-node", "31s request /c", "46s goes /c", "1m1s goes /c", "1m16s goes /c",
		"1m31s goes /c", "1m46s goes /c", "2m1s goes /c", "2m10s request /d", "2m16s ended /c", "read 5, judged 5, other 0, elsewhere 0, outside 0, broken 0, late 0, all true", ".")
}

func TestTimesThatGoBack(t *testing.T) {
	_, got := replayed(t, Options{}, line(500, 0, "/a")+line(600, 0, "/b")+line(10, 0, "/late")+line(601, 0, "/c"))
	check(t, got, "8m20s request /a", "8m20s request /late", "10m0s request /b", "10m1s request /c", "read 4, judged 4, other 0, elsewhere 0, outside 0, broken 0, late 1, all true", ".")
}

func TestOnlyAPartIsReplayed(t *testing.T) {
	o := Options{From: time.Unix(1002, 0), To: time.Unix(1004, 0), Hosts: func(host string) bool { return host == "a.example" }}
	_, got := replayed(t, o, line(1, 0, "/1")+line(2, 0, "/2")+line(3, 0, "/3")+strings.Replace(line(3, 0, "/other"), "a.example", "b.example", 1)+line(4, 0, "/4"))
	check(t, got, "2s request /2", "3s request /3", "read 5, judged 2, other 0, elsewhere 1, outside 2, broken 0, late 0, all true", ".")
}

// Answers that last long are found before the rest is read: each counts once, within
// and without, and also where a line is written in such a way that it is not found.
func TestLongAnswersCountOnce(t *testing.T) {
	o := Options{To: time.Unix(1200, 0)}
	_, got := replayed(t, o, line(50, 40, "/found")+strings.Replace(line(60, 32, "/not-found"), `"duration"`, `"Duration"`, 1)+line(300, 50, "/out"))
	check(t, got, "10s request /found", "25s goes /found", "28s request /not-found", "40s goes /found", "43s goes /not-found", "55s ended /found",
		"58s goes /not-found", "1m5s ended /not-found", "read 3, judged 2, other 0, elsewhere 0, outside 1, broken 0, late 0, all true", ".")
	// One that is left is short by what came before the time that is replayed.
	_, got = replayed(t, Options{From: time.Unix(1025, 0)}, line(50, 40, "/going-on")+line(60, 0, "/next"))
	check(t, got, "25s request /going-on", "40s goes /going-on", "55s ended /going-on", "1m0s request /next", "read 2, judged 2, other 0, elsewhere 0, outside 0, broken 0, late 0, all true", ".")
}

// What cannot be read is counted, and the first of it is shown.
func TestBrokenLines(t *testing.T) {
	_, got := replayed(t, Options{}, line(1, 0, "/1")+"\n\r\n{broken\n"+strings.Repeat("x", 3<<20)+"\n"+line(2, 0, "/2")+"\x00\x00\n"+strings.TrimSuffix(line(3, 0, "/3"), "\n"))
	check(t, got, "1s request /1", "2s request /2", "3s request /3", "read 6, judged 3, other 0, elsewhere 0, outside 0, broken 3, late 0, all true",
		"0.log, line 4: invalid character 'b' looking for beginning of object key string: \"{broken\"")
}

func TestPackedLogs(t *testing.T) {
	name := filepath.Join(t.TempDir(), "a.log.gz")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	z := gzip.NewWriter(f)
	for n := range 5000 {
		fmt.Fprint(z, line(float64(n), 0, fmt.Sprint("/", n)))
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	f.Close()
	r := &recorder{clock: new(Clock)}
	lines, err := Run(context.Background(), []string{name}, r, r.clock, new(Options))
	if err != nil || lines.Judged != 5000 || r.began != time.Unix(1000, 0) {
		t.Errorf("%+v, began %v: %v", lines, r.began, err)
	}
	// One that ends in the middle is read as far as it goes, and says so.
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, whole[:len(whole)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	r = &recorder{clock: new(Clock)}
	lines, err = Run(context.Background(), []string{name}, r, r.clock, new(Options))
	if err == nil || !strings.Contains(err.Error(), "a.log.gz") || lines == nil || lines.Exhausted || lines.Judged == 0 {
		t.Errorf("half a file: %+v, %v", lines, err)
	}
	for _, none := range []string{"none.log", t.TempDir()} {
		if _, err := Run(context.Background(), []string{none}, r, r.clock, new(Options)); err == nil || !strings.Contains(err.Error(), none) {
			t.Errorf("%s: %v", none, err)
		}
	}
}

// Who has seen enough is told what was read until then.
func TestStopping(t *testing.T) {
	name := filepath.Join(t.TempDir(), "a.log")
	var log strings.Builder
	for n := range 50_000 {
		log.WriteString(line(float64(n), 0, "/a"))
	}
	if err := os.WriteFile(name, []byte(log.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &recorder{clock: new(Clock)}
	lines, err := Run(ctx, []string{name}, r, r.clock, &Options{Progress: func(p Progress) {
		if p.All == 0 || p.Bytes == 0 || p.Lines == 0 {
			t.Errorf("progress %+v", p)
		}
		cancel()
	}})
	if err != nil || lines.Exhausted || lines.Judged == 0 || lines.Judged > 40_000 {
		t.Errorf("%+v %v", lines, err)
	}
}

// Nor does it wait for a log in which nothing is written, such as a pipe from tail -f.
func TestStoppingWhileNothingComes(t *testing.T) {
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	defer out.Close()
	stdin := os.Stdin
	os.Stdin = out
	defer func() { os.Stdin = stdin }()
	if _, err := in.WriteString(line(1, 0, "/a") + line(100, 0, "/b")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &recorder{clock: new(Clock)}
	if lines, err := Run(ctx, []string{"-"}, stopping{r, cancel}, r.clock, new(Options)); err != nil || lines.Exhausted || lines.Judged != 1 {
		t.Errorf("%+v %v", lines, err)
	}
}

// stopping is a site that has seen enough with its first request.
type stopping struct {
	*recorder
	stop func()
}

func (s stopping) Request(l *Line) Became {
	s.stop()
	return s.recorder.Request(l)
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(strings.TrimSpace(line(1, 1, "/a"))))
	f.Add([]byte(`10.0.0.1 - - [27/Nov/2026:20:00:01 +0000] "GET /a.ts HTTP/1.1" 200 12 "-" "b\x2` + `"`))
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, format := range []Format{{}, {Fields: map[string]string{"time": "1", "duration": "2", "header.X": "3", "uri": "request>uri"}, Set: map[string]string{"{a}": "4", "{b}": "a>b"}}} {
			l, ok, err := format.Parse(text)
			if ok && (err != nil || l.URI == "" && format.Fields == nil || l.Header == nil || l.Duration < 0) {
				t.Errorf("%+v %v", l, err)
			}
		}
	})
}

// A pipe that nobody writes to is given up.
func TestAPipeWithoutAWriter(t *testing.T) {
	name := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	clock := new(Clock)
	if _, err := Run(ctx, []string{name}, &recorder{clock: clock}, clock, new(Options)); err == nil || !strings.Contains(err.Error(), "nobody writes to it") {
		t.Error(err)
	}
}
