package caddymodule_test

import (
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"hash/fnv"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/standard"

	_ "github.com/streamguard/streamguard/caddymodule"
)

var record = flag.Bool("record", false, "write the answers in testdata/verdicts anew (go test ./caddymodule -run Verdicts -args -record)")

// A recording in testdata/verdicts is a Caddyfile, a line, and then requests with
// their answers. The first were made before deciding was taken out of the
// handler, with the options of then:
//
//	seconds user method URI [header:value...] [<body] => answer
//
// The seconds are those since the first request; a request that is held back does
// not hold up those after it. The user is sent as X-User-Id, as the cookie session
// and by basic_auth; "-" sends none of them. A device that says its name, by the
// cookie device or by X-Device, has an address of its own. A body is JSON if no
// header says otherwise. An answer is the status, how long it was held back, the
// verdict and its placeholders, the URI that the origin was asked for if it is
// another, what the JSON says, and headers (of Cache-Control, what is not private).
// Ids of guards are called id1, id2 and so on, in the order in which they appear.
//
// A redirect to another URL is followed: behind an arrow there is the answer to
// that. Where a later request of the recording is for it, that has followed it.
const recordingLine = "----------\n"

// TestVerdictsAreAsRecorded plays the requests of each recording, in virtual
// time, to its Caddyfile in front of an origin that has everything.
func TestVerdictsAreAsRecorded(t *testing.T) {
	files, err := filepath.Glob("testdata/verdicts/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no recordings, error: %v", err)
	}
	stderr := os.Stderr
	t.Cleanup(func() { os.Stderr = stderr })
	// A handler outside of a running Caddy logs to the terminal, which would hide
	// what the test says.
	if os.Stderr, err = os.OpenFile(os.DevNull, os.O_WRONLY, 0); err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			parts := strings.Split(string(b), recordingLine)
			if len(parts) != 2 {
				t.Fatalf("%d parts, want a Caddyfile and the requests", len(parts))
			}
			synctest.Test(t, func(t *testing.T) { parts[1] = replay(t, parts[0], parts[1]) })
			if *record && !t.Failed() {
				if err := os.WriteFile(file, []byte(strings.Join(parts, recordingLine)), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// replay plays a recording's requests and returns them with the answers that
// they got. It insists on the recorded ones unless they are written anew.
func replay(t *testing.T, caddyfile, requests string) string {
	s := newSite(t, caddyfile)
	defer s.close()
	var calls []*call
	for start := time.Now(); requests != ""; {
		var line string
		line, requests, _ = strings.Cut(requests, "\n")
		request, want, _ := strings.Cut(line, " => ")
		at, words, _ := strings.Cut(request, " ")
		seconds, err := strconv.ParseFloat(at, 64)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		time.Sleep(time.Until(start.Add(time.Duration(seconds * float64(time.Second)))))
		s.name(calls)
		for !s.knows(words) {
			if !slices.ContainsFunc(calls, func(c *call) bool { return c.got == "" }) {
				t.Fatalf("%s: no answer before had such an id", line)
			}
			time.Sleep(time.Second)
			s.name(calls)
		}
		c := &call{request: request, want: want, words: words, later: requests, answered: make(chan answer, 1)}
		calls = append(calls, c)
		go func() { c.answered <- s.answer(s.request(words)) }()
		s.name(calls)
	}
	var answered strings.Builder
	for _, c := range calls {
		for c.got == "" {
			time.Sleep(time.Second)
			s.name(calls)
		}
		if c.got != c.want && !*record {
			t.Errorf("%s\ngot  %s\nwant %s", c.request, c.got, c.want)
		}
		fmt.Fprintf(&answered, "%s => %s\n", c.request, c.got)
	}
	return answered.String()
}

// call is one request of a recording.
type call struct {
	request, want string
	words         string // without its time
	later         string // the requests after it
	answered      chan answer
	so, got       string // the answer to a redirect, and the whole
}

// site is the first server of a Caddyfile, without its listener.
type site struct {
	t      *testing.T
	server *caddyhttp.Server
	routes caddyhttp.Handler
	close  func()
	ids    []string
}

func newSite(t *testing.T, caddyfile string) *site {
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(caddyfile), nil)
	if err != nil {
		t.Fatal(err)
	}
	var c struct {
		Apps struct {
			HTTP struct {
				Servers map[string]*caddyhttp.Server
			}
		}
	}
	if err := json.Unmarshal(config, &c); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	s := &site{t: t, server: c.Apps.HTTP.Servers["srv0"], close: cancel}
	ctx = ctx.WithValue(caddyhttp.ServerCtxKey, s.server)
	if err := s.server.Routes.Provision(ctx); err != nil {
		t.Fatal(err)
	}
	if s.server.Errors != nil {
		if err := s.server.Errors.Routes.Provision(ctx); err != nil {
			t.Fatal(err)
		}
	}
	s.routes = s.server.Routes.Compile(caddyhttp.HandlerFunc(origin))
	return s
}

// askedKey is where a request's context has the URI that the origin was asked for.
type askedKey struct{}

// origin has the sample media, and something under every other path: a master
// playlist by that name, another playlist of a channel under /live, or of a film.
func origin(w http.ResponseWriter, r *http.Request) error {
	*r.Context().Value(askedKey{}).(*string) = r.RequestURI
	w.Header().Set("Cache-Control", "public")
	file := path.Join("../testdata", path.Clean(r.URL.Path))
	if info, err := os.Stat(file); err == nil && !info.IsDir() {
		http.ServeFile(w, r, file)
		return nil
	}
	body := "media"
	switch {
	case path.Base(file) == "master.m3u8":
		body = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1000\nindex.m3u8\n"
	case path.Ext(file) == ".m3u8":
		body = "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n1.ts\n"
		if !strings.HasPrefix(r.URL.Path, "/live/") {
			body += "#EXT-X-ENDLIST\n"
		}
	}
	_, err := w.Write([]byte(body))
	return err
}

// answer is what a request got.
type answer struct {
	*httptest.ResponseRecorder
	request *http.Request
	took    time.Duration
	said    *caddy.Replacer
	asked   string // the URI that the origin was asked for
}

func (s *site) answer(r *http.Request) answer {
	a := answer{ResponseRecorder: httptest.NewRecorder(), request: r, said: caddy.NewReplacer()}
	begun := time.Now()
	r = r.WithContext(context.WithValue(r.Context(), askedKey{}, &a.asked))
	r = caddyhttp.PrepareRequest(r, a.said, a, s.server)
	err := s.routes.ServeHTTP(a, r)
	if failed := err; failed != nil && s.server.Errors != nil {
		unanswered := caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return failed })
		err = s.server.Errors.Routes.Compile(unanswered).ServeHTTP(a, s.server.Errors.WithError(r, failed))
	}
	if err != nil {
		a.WriteHeader(err.(caddyhttp.HandlerError).StatusCode)
	}
	a.took = time.Since(begun)
	return a
}

// name puts the answers that are there into words, those of earlier requests
// first, and has redirects followed.
func (s *site) name(calls []*call) {
	synctest.Wait()
	for _, c := range calls {
		for c.got == "" && len(c.answered) > 0 {
			a := <-c.answered
			got := c.so + s.words(c, a)
			next := s.follow(c, a)
			if next == nil {
				c.got = got
				break
			}
			c.so = got + " -> "
			go func() { c.answered <- s.answer(next) }()
			synctest.Wait()
		}
	}
}

// follow is the request that a redirect leads to, if nobody else makes it.
func (s *site) follow(c *call, a answer) *http.Request {
	location := a.Header().Get("Location")
	if a.Code != http.StatusFound && a.Code != http.StatusTemporaryRedirect || c.so != "" {
		return nil
	}
	to, err := url.Parse(a.request.RequestURI)
	if err == nil {
		to, err = to.Parse(location)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	user, rest, _ := strings.Cut(c.words, " ")
	method, rest, _ := strings.Cut(rest, " ")
	_, fields, more := strings.Cut(rest, " ")
	if strings.Contains(c.later, " "+user+" "+method+" "+s.mask(to.RequestURI())) {
		return nil
	}
	words := user + " " + method + " " + s.mask(to.RequestURI())
	if more {
		words += " " + fields
	}
	return s.request(words)
}

// words says what the answer to a request was.
func (s *site) words(c *call, w answer) string {
	parts := []string{strconv.Itoa(w.Code)}
	say := func(name, value string) {
		if value != "" {
			parts = append(parts, name+strings.ReplaceAll(s.mask(value), ", ", ","))
		}
	}
	judged := func(what string) string {
		value, _ := w.said.GetString("http.stream_guard." + what)
		return value
	}
	if w.took > 0 {
		say("after=", w.took.String())
	}
	say("", judged("verdict"))
	if user := judged("user"); !strings.HasPrefix(c.words, user+" ") {
		say("user=", user)
	}
	for _, what := range []string{"device", "stream", "guard"} {
		say(what+"=", judged(what))
	}
	if held, limit := judged("held"), judged("limit"); held+limit != "" {
		say("held=", cmp.Or(held, "?")+"/"+cmp.Or(limit, "?"))
	}
	if w.asked != w.request.RequestURI || w.Code >= 400 {
		say("origin=", w.asked)
	}
	if strings.HasSuffix(w.Header().Get("Content-Type"), "json") {
		say("", inJSON(s.t, w.Body.Bytes()))
	}
	if cache := w.Header().Get("Cache-Control"); cache != "private" {
		say("Cache-Control:", cmp.Or(cache, "-"))
	}
	for _, name := range []string{
		"Location", "Allow", "Retry-After",
		"Access-Control-Allow-Origin", "Access-Control-Allow-Credentials", "Access-Control-Expose-Headers",
		"Access-Control-Allow-Methods", "Access-Control-Allow-Headers", "Access-Control-Max-Age",
	} {
		say(name+":", strings.Join(w.Header()[name], ","))
	}
	return strings.Join(parts, " ")
}

// guardJSON is a guard as the API shows it, alone or with its problem.
type guardJSON struct {
	GuardID, StreamID, DeviceID string
	Labels                      map[string]string
}

func (g guardJSON) String() string {
	s := g.GuardID + ":" + g.StreamID
	if g.DeviceID != "" {
		s += "@" + g.DeviceID
	}
	if len(g.Labels) > 0 {
		s += strings.ReplaceAll(fmt.Sprint(g.Labels), " ", ",")
	}
	return s
}

// inJSON is what a problem, a guard or a list of guards says.
func inJSON(t *testing.T, body []byte) string {
	if len(body) == 0 {
		return ""
	}
	var b struct {
		guardJSON
		ErrorCode, Per   string
		Guards           []guardJSON
		Limit, Remaining *int
	}
	if err := json.Unmarshal(body, &b); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	var parts []string
	if b.ErrorCode != "" {
		parts = append(parts, "code="+b.ErrorCode)
	}
	if b.Per != "" {
		parts = append(parts, "per="+b.Per)
	}
	if b.GuardID != "" {
		parts = append(parts, "is="+b.guardJSON.String())
	}
	if b.Limit != nil {
		parts = append(parts, fmt.Sprint("limit=", *b.Limit))
	}
	if b.Remaining != nil {
		parts = append(parts, fmt.Sprint("remaining=", *b.Remaining))
	}
	for _, g := range b.Guards {
		parts = append(parts, "has="+g.String())
	}
	return strings.Join(parts, " ")
}

var (
	anID   = regexp.MustCompile(`[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}`)
	idName = regexp.MustCompile(`\bid([0-9]+)\b`)
)

// mask puts names in the place of ids.
func (s *site) mask(text string) string {
	return anID.ReplaceAllStringFunc(text, func(id string) string {
		for i, known := range s.ids {
			if known == id {
				return fmt.Sprint("id", i+1)
			}
		}
		s.ids = append(s.ids, id)
		return fmt.Sprint("id", len(s.ids))
	})
}

// knows reports whether all ids that a request names have appeared.
func (s *site) knows(words string) bool {
	for _, name := range idName.FindAllStringSubmatch(words, -1) {
		if i, _ := strconv.Atoi(name[1]); i < 1 || i > len(s.ids) {
			return false
		}
	}
	return true
}

// request is the one of a line, with the ids that its names stand for.
func (s *site) request(line string) *http.Request {
	words := strings.Fields(idName.ReplaceAllStringFunc(line, func(name string) string {
		i, _ := strconv.Atoi(name[2:])
		return s.ids[i-1]
	}))
	if len(words) < 3 {
		s.t.Fatalf("%s: no user, method and URI", line)
	}
	user, body := words[0], ""
	if last := len(words) - 1; words[last][0] == '<' {
		body, words = words[last][1:], words[:last]
	}
	r := httptest.NewRequest(words[1], words[2], strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if user != "-" {
		r.Header.Set("X-User-Id", user)
		r.Header.Set("Cookie", "session="+user)
		r.SetBasicAuth(user, "p")
	}
	for _, field := range words[3:] {
		name, value, _ := strings.Cut(field, ":")
		if had := r.Header.Get(name); name == "Cookie" && had != "" {
			value = had + "; " + value
		}
		r.Header.Set(name, value)
	}
	device := r.Header.Get("X-Device")
	if c, err := r.Cookie("device"); err == nil {
		device = c.Value
	}
	if device != "" {
		sum := fnv.New32a()
		sum.Write([]byte(device))
		r.RemoteAddr = netip.AddrPortFrom(netip.AddrFrom4([4]byte(sum.Sum(nil))), 1234).String()
	}
	return r
}
