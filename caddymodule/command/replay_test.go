package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/streamguard/streamguard/audience"
	"github.com/streamguard/streamguard/replay"
)

// accessLog writes lines of Caddy's access log.
type accessLog struct {
	strings.Builder
	t *testing.T
}

type logged map[string]any

// line writes a line of a request that came so many seconds after midnight.
func (a *accessLog) line(at float64, uri string, more logged) {
	request := map[string]any{"client_ip": "10.0.0.1", "method": "GET", "host": "a.example", "uri": uri, "headers": map[string][]string{"User-Agent": {"box"}}}
	l := map[string]any{"duration": 0.0, "status": 200, "user_id": "alice", "request": request}
	for name, value := range more {
		key, inner, in := strings.Cut(name, ">")
		switch {
		case key == "request" && in && strings.HasPrefix(inner, "headers>"):
			request["headers"].(map[string][]string)[strings.TrimPrefix(inner, "headers>")] = []string{fmt.Sprint(value)}
		case key == "request" && in:
			request[inner] = value
		default:
			l[key] = value
		}
	}
	l["ts"] = 1_764_201_600 + at + l["duration"].(float64)
	b, err := json.Marshal(l)
	if err != nil {
		a.t.Fatal(err)
	}
	a.Write(append(b, '\n'))
}

// plays writes the lines of a playback that lasts for a minute.
func (a *accessLog) plays(at float64, folder string, more logged) {
	a.line(at, folder+"/master.m3u8", more)
	for n := range 13 {
		a.line(at+1+float64(5*n), fmt.Sprintf("%s/720p/%d.m4s", folder, n), more)
	}
}

func (a *accessLog) file() string {
	name := filepath.Join(a.t.TempDir(), "access.log")
	lines := strings.SplitAfter(a.String(), "\n")
	if err := os.WriteFile(name, []byte(strings.Join(lines, "")), 0o600); err != nil {
		a.t.Fatal(err)
	}
	return name
}

// merged is the files of several logs: a log is in the order in which it was written.
func merged(logs ...*accessLog) (names []string) {
	for _, l := range logs {
		names = append(names, l.file())
	}
	return names
}

func newLogs(t *testing.T, n int) []*accessLog {
	logs := make([]*accessLog, n)
	for i := range logs {
		logs[i] = &accessLog{t: t}
	}
	return logs
}

func notes(r *audience.Report) string { return strings.Join(r.Notes, "\n") }

func TestReplayOfLogs(t *testing.T) {
	site := func(options string) string {
		return "a.example {\n\tstream_guard {\n\t\tuser {http.auth.user.id}\n" + options + "\n\t}\n}\n"
	}
	three := func(t *testing.T, more ...logged) []string {
		logs := newLogs(t, 3)
		for i, l := range logs {
			m := logged{}
			if i < len(more) {
				m = more[i]
			}
			l.plays(float64(10*i), fmt.Sprint("/vod/film", i), m)
		}
		return merged(logs...)
	}
	for _, c := range []struct {
		name, config, site string
		set, fields        map[string]string
		logs               func(t *testing.T) []string

		playbacks, refused, replaced int64
		notes                        string // among the notes, and
		unanswered                   string // why the first rule is not answered
	}{
		{name: "no names at all", config: site("limit 2"), logs: func(t *testing.T) []string { return three(t) }, playbacks: 3, refused: 1, notes: "3 playbacks have no name"},
		{name: "replace", config: site("limit 2 replace"), logs: func(t *testing.T) []string { return three(t) }, playbacks: 3, replaced: 1},
		{name: "a plan", config: site("limit {plan} or 1"), set: map[string]string{"{plan}": "plan"},
			logs: func(t *testing.T) []string { return three(t, logged{"plan": 2}, logged{"plan": 2}, logged{"plan": 2}) }, playbacks: 3, refused: 1},
		{name: "a plan that goes by the user", config: "a.example {\n\tmap {http.auth.user.id} {plan} {\n\t\talice 2\n\t\tdefault 1\n\t}\n\tstream_guard {\n\t\tuser {http.auth.user.id}\n\t\tlimit {plan}\n\t}\n}\n",
			logs: func(t *testing.T) []string { return three(t) }, playbacks: 3, refused: 1},
		{name: "a plan that is not there", config: site("limit {plan} or 1"), logs: func(t *testing.T) []string { return three(t) }, playbacks: 3, refused: 2,
			unanswered: "no line says {plan}"},
		{name: "a device that is set", config: site("device {cookie.device}\nlimit 1 per device"), set: map[string]string{"{http.request.cookie.device}": "device"},
			logs: func(t *testing.T) []string {
				return three(t, logged{"device": "tv"}, logged{"device": "tv"}, logged{"device": "phone"})
			}, playbacks: 3, refused: 1},
		{name: "a device that is redacted", config: site("device {cookie.device}\nlimit 1 per device"),
			logs: func(t *testing.T) []string {
				return three(t, logged{"request>headers>Cookie": "REDACTED"}, logged{"request>headers>Cookie": "device=REDACTED"}, logged{"request>headers>Cookie": "device=REDACTED"})
			}, playbacks: 3, unanswered: "no line says {http.request.cookie.device}"},
		{name: "the login's header is the client's own", config: strings.Replace(site(""), "{http.auth.user.id}", "{header.X-User-Id}", 1),
			logs: func(t *testing.T) []string {
				m := logged{"user_id": "", "request>headers>X-User-Id": "mallory"}
				return three(t, m, m, m)
			}, notes: "log_append user {http.request.header.X-User-Id}"},
		{name: "the user is set", config: strings.Replace(site("limit 2"), "{http.auth.user.id}", "{header.X-User-Id}", 1), set: map[string]string{"{http.request.header.X-User-Id}": "who"},
			logs: func(t *testing.T) []string {
				m := logged{"user_id": "", "who": "alice"}
				return three(t, m, m, m)
			}, playbacks: 3, refused: 1},
		{name: "a path that is cut in front", config: "a.example {\n\thandle_path /cdn/* {\n\t\tstream_guard {\n\t\t\tuser {http.auth.user.id}\n\t\t\tstream dir 1\n\t\t\tlimit 1\n\t\t}\n\t}\n}\n",
			logs: func(t *testing.T) []string {
				logs := newLogs(t, 2)
				logs[0].plays(0, "/cdn/film0", nil)
				logs[1].plays(0, "/elsewhere/film1", nil)
				return merged(logs...)
			}, playbacks: 1},
		{name: "only what a matcher lets in", config: "a.example {\n\t@tv header User-Agent tv*\n\tstream_guard @tv {\n\t\tuser {http.auth.user.id}\n\t}\n}\n",
			logs: func(t *testing.T) []string { return three(t, logged{"request>headers>User-Agent": "tv 1"}) }, playbacks: 1},
		{name: "two hosts mixed", config: site("limit 1") + strings.ReplaceAll(site("limit 1"), "a.example", "b.example"), site: "b.example",
			logs: func(t *testing.T) []string { return three(t, nil, logged{"request>host": "b.example:8443"}) }, playbacks: 1},
		{name: "filtered tokens", config: site("limit 2"),
			logs: func(t *testing.T) []string {
				logs := newLogs(t, 3)
				for i, l := range logs {
					l.plays(float64(i), fmt.Sprint("/~REDACTED/vod/film", i), nil)
				}
				return merged(logs...)
			}, playbacks: 3, refused: 1, notes: "made unreadable"},
		{name: "who says goodbye has left", config: site("limit 1"),
			logs: func(t *testing.T) []string {
				l := newLogs(t, 1)
				id := "6e2fb550-c457-41e9-bb97-0800200c9a66"
				l[0].plays(0, "/~"+id+"/vod/film0", nil)
				l[0].line(70, "/guards/"+id, logged{"request>method": "DELETE", "status": 204})
				l[0].plays(71, "/vod/film1", nil)
				return merged(l...)
			}, playbacks: 2, refused: 1}, // the id is not of this user: what was ended is another's
		{name: "channels without an end", config: site("limit 1"),
			logs: func(t *testing.T) []string {
				l := newLogs(t, 1)
				l[0].line(0, "/live/one.ts", logged{"duration": 300.0, "resp_headers": map[string]any{}})
				l[0].line(310, "/live/two.ts", logged{"duration": 300.0, "resp_headers": map[string]any{}})
				l[0].line(400, "/live/three.ts", logged{"duration": 300.0, "resp_headers": map[string]any{}})
				return merged(l...)
			}, playbacks: 3, refused: 1},
		{name: "what was not delivered", config: site("limit 1"),
			logs: func(t *testing.T) []string {
				return three(t, logged{"status": 404}, logged{"status": 403}, nil)
			}, playbacks: 1},
		{name: "statuses are texts", config: site("limit 1"), logs: func(t *testing.T) []string { return three(t, logged{"status": "404"}, logged{"status": "200"}) }, playbacks: 2, refused: 1},
		{name: "a plan by map that is not there", config: "a.example {\n\tmap {http.vars.tier} {plan} {\n\t\tgold 2\n\t\tdefault 1\n\t}\n\tstream_guard {\n\t\tuser {http.auth.user.id}\n\t\tlimit {plan}\n\t}\n}\n",
			logs: func(t *testing.T) []string { return three(t) }, playbacks: 3, refused: 2, notes: "No line says {http.vars.tier}"},
		{name: "a gate in a named route, and a rewrite in one before it", config: "&(guarded) {\n\tstream_guard {\n\t\tuser {http.auth.user.id}\n\t\tstream dir 1\n\t\tlimit 1\n\t}\n}\na.example {\n\troute {\n\t\troute {\n\t\t\turi strip_prefix /vod\n\t\t}\n\t\tinvoke guarded\n\t}\n}\n",
			logs: func(t *testing.T) []string { return three(t) }, playbacks: 3, refused: 2},
		{name: "two gates by different users", config: site("limit 1") + strings.NewReplacer("a.example", "b.example", "{http.auth.user.id}", "{http.vars.profile}").Replace(site("limit 1 per stream")),
			set: map[string]string{"{http.auth.user.id}": "account", "{http.vars.profile}": "profile"},
			logs: func(t *testing.T) []string {
				a, b := logged{"user_id": "", "account": "alice", "profile": "p1"}, logged{"user_id": "", "account": "alice", "profile": "p2", "request>host": "b.example"}
				return three(t, a, b, a)
			}, playbacks: 3, refused: 1},
		{name: "a wildcard beside a host of its own", config: strings.Replace(site("limit 1"), "a.example", "*.example", 1) + strings.Replace(site("limit 3"), "a.example", "b.example", 1), site: "*.example",
			logs: func(t *testing.T) []string { return three(t, nil, nil, logged{"request>host": "b.example"}) }, playbacks: 2, refused: 1},
		{name: "a gate behind TLS and HTTP/2", config: "a.example {\n\t@secure {\n\t\tprotocol https\n\t\texpression {http.request.proto}.startsWith('HTTP/2')\n\t}\n\tstream_guard @secure {\n\t\tuser {http.auth.user.id}\n\t\tlimit 1\n\t}\n}\n",
			logs: func(t *testing.T) []string {
				m := logged{"request>tls": map[string]any{"version": 772}, "request>proto": "HTTP/2.0"}
				return three(t, m, m)
			}, playbacks: 2, refused: 1},
		{name: "durations in nanoseconds", config: site("limit 1"), logs: func(t *testing.T) []string {
			l := newLogs(t, 1)[0]
			l.plays(0, "/vod/film", nil)
			text := strings.ReplaceAll(l.String(), `"duration":0`, `"duration":800000`)
			l.Reset()
			l.WriteString(strings.Replace(text, `"duration":800000`, `"duration":900000`, 1))
			return merged(l)
		}, playbacks: 1},
		{name: "no duration, no agent", config: site(""), logs: func(t *testing.T) []string {
			return three(t, logged{"request>headers>User-Agent": ""})
		}, playbacks: 3, notes: "have no User-Agent"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := replayWith(t, c.config, c.site, replay.Options{Format: replay.Format{Set: c.set, Fields: c.fields}}, c.logs(t)...)
			if r.Playbacks != c.playbacks || r.Configured.Playbacks != c.refused || r.Configured.Replaced != c.replaced {
				t.Errorf("%d playbacks, %d refused, %d replaced; want %d, %d, %d", r.Playbacks, r.Configured.Playbacks, r.Configured.Replaced, c.playbacks, c.refused, c.replaced)
			}
			if !strings.Contains(notes(r), c.notes) {
				t.Errorf("the notes say nothing of %q:\n%s", c.notes, notes(r))
			}
			if c.unanswered != "" && (len(r.Rules) == 0 || !strings.Contains(r.Rules[0].Unanswered, c.unanswered)) {
				t.Errorf("rules %+v, want the first not known: %s", r.Rules, c.unanswered)
			}
		})
	}
}

// Hosts and placeholders are known however they are written.
func TestReplayKnowsWhatIsMeant(t *testing.T) {
	config := writeConfig(t, "bücher.example:8443 {\n\tstream_guard {\n\t\tuser {header.x-user-id}\n\t\tlimit 1\n\t}\n}\n")
	for _, r := range []replaying{
		{set: []string{"{header.X-User-Id}=who"}},
		{set: []string{"{http.request.header.X-USER-ID}=who"}, site: "bücher.example"},
		{set: []string{"{http.request.header.x-user-id}=who"}, site: "xn--bcher-kva.example"},
		{set: []string{"{header.x-user-id}=who"}, site: "bücher.example:8443"},
	} {
		for _, host := range []string{"xn--bcher-kva.example:8443", ""} {
			l := newLogs(t, 1)[0]
			l.plays(0, "/vod/film", logged{"request>host": host, "user_id": "", "who": "alice"})
			o := &operator{config: config, adapter: "caddyfile"}
			if err := o.replay(&r, []string{l.file()}); err != nil || !strings.Contains(o.out.String(), "1 user") {
				t.Errorf("%+v, host %q: %v\n%s", r, host, err, &o.out)
			}
		}
	}
	twice := replaying{set: []string{"{header.X-User-Id}=a", "{http.request.header.x-user-id}=b"}}
	if err := (&operator{config: config, adapter: "caddyfile"}).replay(&twice, nil); err == nil || !strings.Contains(err.Error(), "given twice") {
		t.Errorf("two fields for one placeholder: %v", err)
	}
}

// What players get wrong, and operators, is found in the log.
func TestReplayFindings(t *testing.T) {
	logs := newLogs(t, 3)
	logs[0].plays(0, "/vod/film", logged{"request>headers>X-Playback-Session-Id": "one"})
	logs[0].line(61, "/vod/film/list", logged{"resp_headers": map[string][]string{"Content-Type": {"application/vnd.apple.mpegurl"}}})
	logs[0].line(62, "/vod/film/seg-14.enc", nil)
	logs[0].line(63, "/app.js", nil)
	for n := range 10 {
		logs[1].line(float64(n), fmt.Sprintf("/vod/films/%c.m3u8", 'a'+n), logged{"user_id": fmt.Sprint("user", n)})
	}
	for n := range 3 { // a player that gives itself a new name
		logs[2].line(100+float64(n), fmt.Sprintf("/vod/other/%d.ts?CMCD=sid%%3D%%22%d%%22", n, n), logged{"user_id": "bob"})
	}
	r := replayLog(t, "a.example {\n\tstream_guard {\n\t\tuser {http.auth.user.id}\n\t\tlimit 2\n\t}\n}\n", merged(logs...)...)
	if len(r.Uncounted) != 2 || r.Uncounted[0].Requests != 1 || r.Uncounted[0].Kind == r.Uncounted[1].Kind {
		t.Errorf("not counted: %+v", r.Uncounted)
	}
	if len(r.Crowded) != 1 || r.Crowded[0].Stream != "vod/films" || len(r.Crowded[0].Paths) != 2 {
		t.Errorf("crowded: %+v", r.Crowded)
	}
	if r.SelfRefusals != 1 || len(r.SelfRefusalExamples) != 1 || len(r.SelfRefusalExamples[0].Lines) != 2 || r.SelfRefusalExamples[0].User != "bob" {
		t.Errorf("self-refusals: %d %+v", r.SelfRefusals, r.SelfRefusalExamples)
	}
}

func TestReplaySaysWhatIsWrong(t *testing.T) {
	for config, want := range map[string]string{
		"a.example {\n\trespond hi\n}\n": "no stream_guard",
		"a.example {\n\tstream_guard {\n\t\tuser {http.auth.user.id}\n\t\tstore redis redis://a:1\n\t}\n}\nb.example {\n\tstream_guard {\n\t\tuser {http.auth.user.id}\n\t}\n}\n": "choose one by --site",
	} {
		o := &operator{config: writeConfig(t, config), adapter: "caddyfile"}
		if err := o.replay(&replaying{}, []string{os.DevNull}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\n%v, want %q", config, err, want)
		}
	}
	good := writeConfig(t, "a.example {\n\tstream_guard {\n\t\tuser {http.auth.user.id}\n\t}\n}\n")
	for want, r := range map[string]replaying{
		`--from: "yesterday"`:            {from: "yesterday"},
		"is not after":                   {from: "2026-11-27", to: "2026-11-27"},
		`--field: "color" is not one of`: {fields: []string{"color=10"}},
		`--field: "host"`:                {fields: []string{"host"}},
		`--set: "user"`:                  {set: []string{"user=user"}},
		"given twice":                    {set: []string{"{a}=b", "{a}=c"}},
		`no site "c.example"`:            {site: "c.example"},
		"none.log":                       {},
	} {
		o := &operator{config: good, adapter: "caddyfile"}
		logs := []string{os.DevNull}
		if want == "none.log" {
			logs = []string{"none.log"}
		}
		if err := o.replay(&r, logs); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", r, err, want)
		}
	}
	if err := (&operator{}).replay(&replaying{}, nil); err == nil || !strings.Contains(err.Error(), "--config") {
		t.Errorf("without a config: %v", err)
	}
}

// Where nothing is counted, the reason is all that is said; where something is missing
// that was asked for, it is an error beside the report.
func TestReplaySaysWhyNothingCounts(t *testing.T) {
	site := "a.example {\n\tstream_guard {\n\t\tuser {header.X-User-Id}\n\t\tlimit 1\n\t}\n}\n"
	two := site + strings.ReplaceAll(site, "a.example", "b.example")
	nginx := func(user string, status int) string {
		return fmt.Sprintf(`192.0.2.1 - %s [27/Nov/2026:20:00:00 +0000] "GET /vod/film/1.ts HTTP/1.1" %d 1 "-" "box"`+"\n", user, status)
	}
	for _, c := range []struct {
		name, config, log string
		r                 replaying
		want              string
		report            bool // is there all the same
	}{
		{name: "no host, two sites", config: two, log: nginx("alice", 200), want: "choose one by --site, of a.example; b.example"},
		{name: "another site", config: two, log: nginx("alice", 200), r: replaying{site: "c.example"}, want: `no site "c.example" of the config has a stream_guard; there is a.example; b.example`},
		{name: "answered with errors", config: site, log: nginx("alice", 503), want: "answered with an error (1)"},
		{name: "another day", config: site, log: nginx("alice", 200), r: replaying{from: "2026-11-28"}, want: "outside --from and --to"},
		{name: "nobody, in nginx' words", config: site, log: nginx("-", 200), want: "--field user=<position>"},
		{name: "nobody, and the field is known", config: site, log: nginx("-", 200), r: replaying{set: []string{"{header.X-User-Id}=9"}}, report: true},
		{name: "a field that is not there", config: site, log: nginx("alice", 200), r: replaying{fields: []string{"duration=99"}}, want: "no line has anything in the field 99", report: true},
		{name: "a field that is no position", config: site, log: nginx("alice", 200), r: replaying{fields: []string{"duration=took"}}, want: "no line has anything in the field took", report: true},
		{name: "a placeholder's field that is not there", config: site, log: nginx("alice", 200), r: replaying{set: []string{"{header.X-User-Id}=plan"}}, want: "no line has anything in the field plan", report: true},
		{name: "another format", config: site, log: "\x7fELF\x01\x02\n\x00\x00\n", want: "no line can be read"},
		{name: "nothing at all", config: site, want: "no line to read"},
		{name: "a running Caddy", config: site, log: nginx("alice", 200), want: ""},
		{name: "a moment that is none", config: site, log: nginx("alice", 200), r: replaying{fields: []string{"time=6"}}, want: "the right field for the time"},
		{name: "a moment for a duration", config: site, log: strings.Repeat(strings.TrimSuffix(nginx("alice", 200), "\n")+" 1795197600.123\n", 2), r: replaying{fields: []string{"duration=10"}}, want: "no line can be read"},
		{name: "a placeholder that nothing goes by", config: site, log: nginx("alice", 200), r: replaying{set: []string{"{http.vars.plam}=3"}}, want: "nothing in the config goes by {http.vars.plam}"},
		{name: "half of it", config: site, log: nginx("alice", 200) + "half of a line\n", want: "1 of 2 lines cannot be read", report: true},
		{name: "the newest first", config: site, log: nginx("alice", 200) + strings.Replace(nginx("alice", 200), "20:00", "20:05", 1) + strings.Replace(nginx("alice", 200), "20:00", "10:00", 1), want: "1 of 3 lines came out of order", report: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLogs(t, 1)[0]
			l.WriteString(c.log)
			o := &operator{config: writeConfig(t, c.config), adapter: "caddyfile"}
			err := o.replay(&c.r, []string{l.file()})
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if has := strings.Contains(o.out.String(), "LIMIT"); has != (c.report || c.want == "") {
				t.Errorf("there is a report: %v\n%s", has, &o.out)
			}
		})
	}
}

// Times of whole seconds do not tell what came first within one.
func TestReplayOfWholeSeconds(t *testing.T) {
	nginx := func(second, path, took string) string {
		return fmt.Sprintf(`video.example:443 192.0.2.1 - alice [27/Nov/2026:20:00:%s +0000] "GET /vod/film/%s HTTP/1.1" 200 1 "-" "box" %s`+"\n", second, path, took)
	}
	manifests := nginx("10", "master.m3u8", "0.010") + nginx("10", "index.m3u8", "0.010")
	segments := nginx("10", "1.ts", "0.400") + nginx("14", "2.ts", "0.100") + nginx("18", "3.ts", "2.300")
	iso := `{"time":"2026-11-27T20:00:10+00:00","request":"GET /vod/film/master.m3u8 HTTP/1.1","took":"0.010","client":"192.0.2.1","who":"alice"}` + "\n"
	iso += strings.NewReplacer("master.m3u8", "1.ts", "0.010", "0.400").Replace(iso)
	write := func(text string) string {
		l := newLogs(t, 1)[0]
		l.WriteString(text)
		return l.file()
	}
	const config = "video.example {\n\tstream_guard {\n\t\tuser {http.auth.user.id}\n\t\tlimit 1\n\t}\n}\n"
	for name, c := range map[string]struct {
		logs   []string
		fields map[string]string
	}{
		"one log":                   {[]string{write(manifests + segments)}, map[string]string{"duration": "11"}},
		"two nodes":                 {[]string{write(manifests), write(segments)}, map[string]string{"duration": "11"}},
		"two nodes, the other way":  {[]string{write(segments), write(manifests)}, map[string]string{"duration": "11"}},
		"JSON with a whole request": {[]string{write(iso)}, map[string]string{"time": "time", "uri": "request", "duration": "took", "client_ip": "client", "user": "who"}},
	} {
		r := replayWith(t, config, "", replay.Options{Format: replay.Format{Fields: c.fields}}, c.logs...)
		if r.Playbacks != 1 || r.Users != 1 || r.Configured.Playbacks != 0 || r.Top[0].User != "alice" {
			t.Errorf("%s: %d playbacks of %d users, %d refused, by %s; want 1 of 1, 0, alice", name, r.Playbacks, r.Users, r.Configured.Playbacks, r.Top[0].User)
		}
	}
}

// A log that is given twice is said to be.
func TestReplayOfCopies(t *testing.T) {
	l := newLogs(t, 1)[0]
	l.plays(0, "/vod/film", nil)
	o := &operator{config: writeConfig(t, "a.example {\n\tstream_guard {\n\t\tuser {http.auth.user.id}\n\t}\n}\n"), adapter: "caddyfile"}
	if err := o.replay(&replaying{}, []string{l.file(), l.file()}); err == nil || !strings.Contains(err.Error(), "14 of 28 lines are in two of the logs") {
		t.Error(err)
	}
}

// A page goes where a link leads to, and the link stays.
func TestReportPageBehindALink(t *testing.T) {
	page := filepath.Join(t.TempDir(), "page.html")
	link := page + ".link"
	if err := os.Symlink(page, link); err != nil {
		t.Fatal(err)
	}
	flags := pageFlags{file: link}
	if err := errors.Join(flags.check(), flags.write(nil)); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode().IsRegular() {
		t.Errorf("the link is %v, %v", info, err)
	}
	if text, err := os.ReadFile(page); err != nil || len(text) == 0 {
		t.Errorf("%d bytes, %v", len(text), err)
	}
}

// What clients wrote is said to be theirs.
func TestReplayWarnsOfHeaders(t *testing.T) {
	l := newLogs(t, 1)[0]
	l.plays(0, "/vod/film", logged{"user_id": "", "request>headers>X-Who": "alice"})
	o := &operator{config: writeConfig(t, "a.example {\n\tstream_guard {\n\t\tuser {header.X-Who}\n\t}\n}\n"), adapter: "caddyfile"}
	if err := o.replay(&replaying{set: []string{"{header.X-Who}=request>headers>X-Who"}}, []string{l.file()}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(o.out.String(), "what clients sent") {
		t.Errorf("nothing is said of it:\n%s", &o.out)
	}
}

// Nothing in a log does anything to a terminal, or takes more than its room.
func TestReplayOfHostileLines(t *testing.T) {
	l := newLogs(t, 1)[0]
	for n, uri := range []string{"/vod/\x1b[2J/1.ts", "/vod/%1b%5b2J/1.ts", "/vod/<script>alert(1)</script>/1.ts", "/vod/" + strings.Repeat("a", 900_000) + "/1.ts", "/vod/\u202e/1.ts", "", "*", "http://[::1", "/%zz"} {
		l.line(float64(n), uri, logged{"user_id": "al\x1bice<b>\u202e", "request>client_ip": "not an address", "request>headers>Range": "x"})
	}
	l.line(-1e9, "/vod/a/1.ts", nil)
	l.WriteString(strings.Repeat("[", 100_000) + "\n{\"ts\":{},\"request\":[]}\n")
	o := &operator{config: writeConfig(t, "a.example {\n\tstream_guard {\n\t\tuser {http.auth.user.id}\n\t\tlimit 1\n\t}\n}\n"), adapter: "caddyfile"}
	if err := o.replay(&replaying{}, []string{l.file()}); err == nil || !strings.Contains(err.Error(), "2 of 12 lines cannot be read") {
		t.Fatal(err)
	}
	text := o.out.String()
	if strings.ContainsAny(text, "\x1b\u202e\x00") || len(text) > 20_000 {
		t.Errorf("%d bytes: %.2000q", len(text), text)
	}
	if !strings.Contains(text, "cannot be read") || !strings.Contains(text, "line 1") {
		t.Errorf("it does not say what cannot be read:\n%s", text)
	}
}

func writeConfig(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "Caddyfile")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// The example of the documentation is what the command prints of the log in testdata.
func TestReplayDocs(t *testing.T) {
	doc, err := os.ReadFile("../../docs/replay.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, _ := strings.Cut(string(doc), "```console\n")
	block, _, _ = strings.Cut(block, "```")
	command, want, _ := strings.Cut(block, "\n")
	if command != "$ caddy stream-guard replay --config testdata/replay/Caddyfile testdata/replay/access.log.gz 2>/dev/null | sed -n '5,11p;17,27p'" {
		t.Fatalf("another command: %s", command)
	}
	o := &operator{config: "../../testdata/replay/Caddyfile", adapter: "caddyfile"}
	page := filepath.Join(t.TempDir(), "report.html")
	if err := o.replay(&replaying{page: pageFlags{file: page}}, []string{"../../testdata/replay/access.log.gz"}); err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(o.out.String(), "\n")
	where := regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d`) // the docs are written where it is UTC
	got := strings.Join(append(lines[4:11:11], lines[16:27]...), "")
	if where.ReplaceAllString(got, "then") != where.ReplaceAllString(want, "then") {
		t.Errorf("it prints\n%s\nwhere the docs have\n%s", got, want)
	}
	if text, err := os.ReadFile(page); err != nil || !strings.Contains(string(text), "627") {
		t.Errorf("the page: %v", err)
	}
}
