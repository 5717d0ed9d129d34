package caddymodule

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/streamguard/streamguard/audience"
	"github.com/streamguard/streamguard/operate"
	"github.com/streamguard/streamguard/redisstore/redistest"
)

// observingNow are the sites whose gates observe by call, as stores has them.
func observingNow(t *testing.T) (sites []string) {
	t.Helper()
	health, _ := administer[[]operate.Health](t, 200, "GET", "/stream_guard/stores", "")
	for _, h := range health {
		for _, g := range h.Observing {
			if time.Since(*g.ObservingSince) > time.Hour || g.Store != h.Store {
				t.Errorf("%+v", g)
			}
			sites = append(sites, strings.Join(g.Sites, " "))
		}
	}
	return sites
}

// measured is the value of a counter or a gauge.
func measured(metric prometheus.Metric) float64 {
	var m dto.Metric
	if err := metric.Write(&m); err != nil {
		panic(err)
	}
	return m.GetCounter().GetValue() + m.GetGauge().GetValue()
}

func expect(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if len(got) != len(want) || len(got) > 0 && !reflect.DeepEqual(got, want) {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}

const observeNow = `{"mode":"observe"}`

// From the call on nobody is refused, whatever was said before, and what is taken back
// is enforced again. A config that is the same, or is refused, changes nothing.
func TestAnOperatorStopsAllRefusalsByOneCall(t *testing.T) {
	config := func(more string) string {
		return "SITE {\nheader >X-Verdict {http.stream_guard.verdict}\nstream_guard {\n" + user + "playback stream\nlimit 2 replace\nlimit 1 per stream\nstore memory bycall\n}\nrespond ok" + more + "\n}"
	}
	s := serve(t, config(""))
	s.call(200, "GET", "/v/x/1.ts", sid, `sid="a"`)
	s.call(200, "GET", "/v/y/1.ts", sid, `sid="b"`)
	s.call(429, "GET", "/v/y/1.ts", sid, `sid="late"`, "User-Agent", "another") // at the limit of the stream,
	s.call(200, "GET", "/v/z/1.ts", sid, `sid="z"`)
	s.call(429, "GET", "/v/x/2.ts", sid, `sid="a"`) // replaced,
	s.call(200, "GET", "/v/r/1.ts", sid, `sid="r"`, "X-User-Id", "revoked")
	administer[any](t, 200, "DELETE", operate.UserPath("revoked"), "")
	s.call(429, "GET", "/v/r/2.ts", sid, `sid="r"`, "X-User-Id", "revoked")
	if _, message := administer[any](t, 200, "GET", "/stream_guard/report", ""); message != "" {
		t.Error(message)
	}

	gates, _ := administer[[]operate.Gate](t, 200, "GET", "/stream_guard/mode", "")
	if len(gates) != 1 || gates[0].ObservingSince != nil || gates[0].Mode != "enforce" || gates[0].Store != "memory bycall" {
		t.Errorf("the gates: %+v", gates)
	}
	first, _ := administer[[]operate.Gate](t, 200, "PUT", "/stream_guard/mode", observeNow)
	if len(first) != 1 || first[0].ObservingSince == nil || first[0].Mode != "enforce" {
		t.Fatalf("%+v", first)
	}
	again, _ := administer[[]operate.Gate](t, 200, "PUT", "/stream_guard/mode", observeNow)
	if !reflect.DeepEqual(again, first) {
		t.Errorf("said again: %+v, before: %+v", again, first)
	}
	expect(t, "observing", observingNow(t), "127.0.0.1")
	if n := measured(observing); n != 1 {
		t.Errorf("the gauge is %v", n)
	}
	s.call(200, "GET", "/v/x/2.ts", sid, `sid="a"`)
	s.call(200, "GET", "/v/y/1.ts", sid, `sid="late"`, "User-Agent", "another")
	s.call(200, "GET", "/v/r/2.ts", sid, `sid="r"`, "X-User-Id", "revoked")
	s.call(201, "POST", "/guards", sid, `sid="d"`)
	s.call(401, "GET", "/v/x/1.ts", "X-User-Id", "") // nobody is still nobody
	for n := range 5 {
		if h, _ := s.call(200, "GET", fmt.Sprintf("/v/n%d/1.ts", n), sid, fmt.Sprintf(`sid="n%d"`, n)); h.Get("X-Verdict") != "would_replace" {
			t.Errorf("start %d: %s", n, h.Get("X-Verdict"))
		}
	}
	s.call(200, "GET", "/v/y/2.ts", sid, `sid="b"`) // nobody has taken its slot
	report, _ := administer[[]audience.Report](t, 200, "GET", "/stream_guard/report", "")
	if len(report) != 1 || report[0].Playbacks < 6 {
		t.Errorf("the report: %+v", report)
	}

	// The same config, and one that is refused.
	if err := caddy.Load([]byte(`{"apps":{"http":{"servers":{"x":{"listen":[":-1"]}}}}}`), true); err == nil {
		t.Fatal("the bad config was loaded")
	}
	if err := s.load("SITE {\nstream_guard {\n" + user + "limit -1\n}\n}"); err == nil {
		t.Fatal("the bad config was loaded")
	}
	if err := s.load(strings.Replace(config(""), "\nrespond ok", "\nreverse_proxy {\nlb_policy nonsense\n}", 1)); err == nil {
		t.Fatal("the bad config was loaded")
	}
	expect(t, "after bad configs", observingNow(t), "127.0.0.1")
	s.call(200, "GET", "/v/z/1.ts", sid, `sid="z"`)

	for _, undo := range [][2]string{{"DELETE", ""}, {"PUT", `{"mode":"config"}`}} {
		administer[any](t, 200, "PUT", "/stream_guard/mode", observeNow)
		back, _ := administer[[]operate.Gate](t, 200, undo[0], "/stream_guard/mode", undo[1])
		if len(back) != 1 || back[0].ObservingSince != nil {
			t.Errorf("%s: %+v", undo[0], back)
		}
		expect(t, "taken back", observingNow(t))
		s.call(429, "GET", "/v/y/1.ts", sid, `sid="late `+undo[0]+`"`)
		s.call(200, "GET", "/v/z/2.ts", sid, `sid="z"`) // who is there stays
	}

	// Another config ends it.
	administer[any](t, 200, "PUT", "/stream_guard/mode", observeNow)
	s.reload(config(" 203"), 203)
	expect(t, "after the reload", observingNow(t))
	eventually(t, "the end of the config before", func() bool { return measured(observing) == 0 })
	s.call(429, "GET", "/v/y/1.ts", sid, `sid="later"`)
}

// Sites are chosen by their hosts, stores by their names.
func TestAnOperatorChoosesTheSite(t *testing.T) {
	s := serve(t, "SITE {\nrespond ok\n}")
	_, port, _ := strings.Cut(s.addr, ":")
	gate := func(store string) string {
		return "stream_guard {\n" + user + "playback stream\nlimit 1\nstore memory " + store + "\n}\n"
	}
	if err := s.load(strings.NewReplacer("PORT", port, "GATE1", gate("one"), "GATE2", gate("two"), "GATE3", gate("three")).Replace(`
&(shared) {
	GATE2
	respond shared
}
http://One.example.com:PORT, http://two.example.com:PORT {
	route /vod/* {
		GATE1
	}
	route /live/* {
		GATE2
	}
	respond ok
}
http://*.example.net:PORT {
	@tv host tv.example.net
	handle @tv {
		GATE3
		respond tv
	}
	handle {
		invoke shared
	}
}
http://three.example.com:PORT {
	invoke shared
}
http://:PORT {
	GATE3
	respond ok
}`)); err != nil {
		t.Fatal(err)
	}
	listed := func(query string) (lines []string) {
		gates, _ := administer[[]operate.Gate](t, 200, "GET", "/stream_guard/mode"+query, "")
		for _, g := range gates {
			lines = append(lines, strings.Join(g.Sites, " ")+": "+g.Store)
		}
		return lines
	}
	expect(t, "all gates", listed(""),
		"one.example.com two.example.com: memory one",
		":"+port+": memory three",
		"tv.example.net: memory three",
		"*.example.net three.example.com: memory two",
		"one.example.com two.example.com: memory two")
	expect(t, "a store's", listed("?store=memory+one"), "one.example.com two.example.com: memory one")
	expect(t, "a site's", listed("?site=TV.example.net&site=:"+port), ":"+port+": memory three", "tv.example.net: memory three")

	n := 0
	refused := func(host, path string) bool {
		t.Helper()
		n++
		viewer := fmt.Sprint("viewer", n)
		s.call(200, "GET", path+"/x/1.ts", "Host", host, "X-User-Id", viewer, sid, `sid="a"`)
		r, _ := http.NewRequest("GET", "http://"+s.addr+path+"/y/1.ts", nil)
		r.Host = host
		r.Header.Set("X-User-Id", viewer)
		r.Header.Set(sid, `sid="b"`)
		resp := s.send(r)
		resp.Body.Close()
		return resp.StatusCode == 429
	}
	places := [][2]string{{"one.example.com", "/vod"}, {"two.example.com", "/live"}, {"tv.example.net", "/vod"}, {"any.example.net", "/vod"}, {"three.example.com", "/vod"}, {"nobody.example.org", "/vod"}}
	enforced := func() (hosts []string) {
		t.Helper()
		for _, p := range places {
			if refused(p[0], p[1]) {
				hosts = append(hosts, p[0]+p[1])
			}
		}
		return hosts
	}
	expect(t, "enforced", enforced(), "one.example.com/vod", "two.example.com/live", "tv.example.net/vod", "any.example.net/vod", "three.example.com/vod", "nobody.example.org/vod")
	administer[any](t, 200, "PUT", "/stream_guard/mode?site=two.example.com&store=memory+two", observeNow)
	expect(t, "enforced", enforced(), "one.example.com/vod", "tv.example.net/vod", "any.example.net/vod", "three.example.com/vod", "nobody.example.org/vod")
	administer[any](t, 200, "PUT", "/stream_guard/mode?site=one.example.com&site=tv.example.net", observeNow)
	expect(t, "enforced", enforced(), "any.example.net/vod", "three.example.com/vod", "nobody.example.org/vod")
	administer[any](t, 200, "PUT", "/stream_guard/mode?site=three.example.com", observeNow) // a gate of two sites
	expect(t, "enforced", enforced(), "nobody.example.org/vod")
	administer[any](t, 200, "DELETE", "/stream_guard/mode?site=tv.example.net", "")
	expect(t, "enforced", enforced(), "tv.example.net/vod", "nobody.example.org/vod")
	administer[any](t, 200, "PUT", "/stream_guard/mode", observeNow)
	expect(t, "enforced", enforced())
	administer[any](t, 200, "DELETE", "/stream_guard/mode?store=memory+three", "")
	expect(t, "observing", observingNow(t), "one.example.com two.example.com", "*.example.net three.example.com", "one.example.com two.example.com")
}

func TestMistakesInACallOfModeAreNamed(t *testing.T) {
	s := serve(t, "SITE {\nstream_guard {\n"+user+"store memory mistakes\n}\nrespond ok\n}")
	for _, c := range []struct {
		status              int
		method, query, body string
		says                string
	}{
		{400, "PUT", "", "", `takes a body: {"mode": "observe"} or {"mode": "config"}`},
		{400, "PUT", "", "observe", "body: invalid character"},
		{400, "PUT", "", `"observe"`, "body: json: cannot unmarshal"},
		{400, "PUT", "", `{}`, "mode: missing"},
		{400, "PUT", "", `{"mode":null}`, "mode: missing"},
		{400, "PUT", "", `{"mode":"enforce"}`, `mode: "enforce" is not one of observe, config`},
		{400, "PUT", "", `{"mode":"Observe"}`, `mode: "Observe" is not`},
		{400, "PUT", "", `{"mode":"observe","site":"127.0.0.1"}`, `unknown field "site"; it takes {"mode": "observe"} or {"mode": "config"}, and the query takes site and store`},
		{400, "PUT", "", observeNow + observeNow, "something behind"},
		{400, "PUT", "?sites=127.0.0.1", observeNow, `query: "sites" is not one of site, store`},
		{404, "PUT", "?site=127.0.0.2", observeNow, `there is no site "127.0.0.2" with a stream_guard; there is "127.0.0.1"`},
		{404, "PUT", "?site=127.0.0.1&site=", observeNow, `there is no site ""`},
		{404, "PUT", "?store=x", observeNow, `there is no store "x"; in use: "memory mistakes"`},
		{400, "DELETE", "", observeNow, "takes no body"},
		{404, "DELETE", "?site=x", "", `there is no site "x"`},
		{405, "POST", "", observeNow, "POST is not one of DELETE, GET, PUT"},
		{405, "PATCH", "", observeNow, "PATCH is not one of DELETE, GET, PUT"},
	} {
		if _, message := administer[any](t, c.status, c.method, "/stream_guard/mode"+c.query, c.body); !strings.Contains(message, c.says) {
			t.Errorf("%s %s %s: %q, want %q", c.method, c.query, c.body, message, c.says)
		}
	}
	expect(t, "observing", observingNow(t))
	if err := s.load("SITE {\nrespond ok\n}"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end of the gate", func() bool { return len(inConfig) == 0 })
	for _, method := range []string{"GET", "PUT", "DELETE"} {
		body := ""
		if method == "PUT" {
			body = observeNow
		}
		eventually(t, method, func() bool {
			_, message := administer[any](t, 404, method, "/stream_guard/mode", body)
			return message == "the running config has no stream_guard"
		})
	}
}

// Who waits when the call comes is not refused afterwards.
func TestStartsThatWaitPassWhenAnOperatorHasSaidSo(t *testing.T) {
	for name, start := range map[string]struct {
		want         int
		method, path string
	}{"a manifest": {200, "GET", "/v/x/master.m3u8"}, "media": {200, "GET", "/v/x/1.ts"}, "the API": {201, "POST", "/guards"}} {
		withGate(t, Handler{Limits: []Limit{{Limit: "1"}}}, func(g *site) {
			g.get(200, "/v/x/1.ts", sid, `sid="a"`)
			done := make(chan int)
			go func() {
				r, w := ask(start.method, start.path, sid, `sid="b"`, "Content-Type", "application/json"), httptest.NewRecorder()
				if start.method == "POST" {
					r.Body = io.NopCloser(strings.NewReader(`{"streamId":"v/x"}`))
				}
				r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, new(caddyhttp.Server))
				err := g.ServeHTTP(w, r, caddyhttp.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
					_, err := io.WriteString(w, "media")
					return err
				}))
				if err != nil {
					t.Error(err)
				}
				done <- w.Code
			}()
			time.Sleep(3 * time.Second) // in virtual time
			select {
			case code := <-done:
				t.Fatalf("%s does not wait: %d", name, code)
			default:
			}
			g.observe(true, []string{"here"})
			g.get(200, "/v/x/2.ts", sid, `sid="a"`) // somebody watches: no room comes of the waiting
			if code := <-done; code != start.want {
				t.Errorf("%s: %d, want %d", name, code, start.want)
			}
		})
	}
}

// The log says once that it begins, and once that it ends.
func TestTheLogSaysThatAnOperatorHasAGateObserve(t *testing.T) {
	redis := redistest.Start(t)
	file := filepath.Join(t.TempDir(), "log")
	s := serve(t, "SITE {\nrespond ok\n}")
	load := func(answer string) {
		t.Helper()
		config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte("{\nadmin off\npersist_config off\nlog {\noutput file "+file+"\nformat json\n}\n}\nhttp://"+s.addr+
			" {\nstream_guard {\n"+user+"store redis redis://"+redis.Addr+"\n}\nrespond "+answer+"\n}"), map[string]any{"filename": "Caddyfile"})
		if err == nil {
			err = caddy.Load(config, true)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	lines := func(what string) (found []string) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if strings.Contains(line, what) {
				found = append(found, line)
			}
		}
		return found
	}
	load("yes")
	for range 2 {
		administer[any](t, 200, "PUT", "/stream_guard/mode", observeNow)
	}
	begun := lines("nobody is refused by this gate")
	if len(begun) != 1 || !strings.Contains(begun[0], `"level":"warn"`) || !strings.Contains(begun[0], `"sites":["127.0.0.1"],"store":"redis `+redis.Addr) {
		t.Errorf("at the beginning: %q", begun)
	}
	load("no")
	eventually(t, "a line about the end", func() bool { return len(lines("the config has changed")) == 1 })
	for range 2 {
		administer[any](t, 200, "PUT", "/stream_guard/mode", observeNow)
		administer[any](t, 200, "DELETE", "/stream_guard/mode", "")
		administer[any](t, 200, "DELETE", "/stream_guard/mode", "")
	}
	if back := lines("that observed does what its mode says"); len(back) != 2 {
		t.Errorf("taken back: %q", back)
	}
}

// An endless answer that began before the call goes on after it, although another gate,
// which enforces, has given its slot away.
func TestALongAnswerIsNotCutWhereAnOperatorHasSaidSo(t *testing.T) {
	for name, called := range map[string]bool{"enforced": false, "observed": true} {
		t.Run(name, func(t *testing.T) {
			c := newChannels(t)
			gate := "stream_guard {\n" + user + "limit 1 replace\nstore memory \"long by call\"\n}\nreverse_proxy " + strings.TrimPrefix(c.URL, "http://") + "\n}\n"
			s := serve(t, "SITE {\nrespond ok\n}")
			_, port, _ := strings.Cut(s.addr, ":")
			if err := s.load("SITE {\n" + gate + "http://other.example.com:" + port + " {\n" + gate); err != nil {
				t.Fatal(err)
			}
			defer newApp(s, "u").watch("/live/7.ts").Body.Close()
			if called {
				administer[any](t, 200, "PUT", "/stream_guard/mode?site=127.0.0.1", observeNow)
			}
			s.call(200, "GET", "/vod/film/segment1.ts", "Host", "other.example.com", "User-Agent", "another", sid, `sid="film"`)
			if !called {
				c.sends(t, "/live/7.ts", 0)
				return
			}
			eventually(t, "the guards of both", func() bool { return len(s.guardsOf("u")) == 2 })
			c.sends(t, "/live/7.ts", 1)
		})
	}
}
