package caddymodule

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/streamguard/streamguard/redisstore/redistest"
)

// cook runs the Caddyfile of a recipe of docs/configuration.md, with a login
// service and an origin that has everything. Who watches is said by X-Login, unless
// the login service is the test's own.
func cook(t *testing.T, heading string, login http.HandlerFunc, replace ...string) *server {
	t.Helper()
	_, section, found := strings.Cut(readDoc(t), "\n### "+heading+"\n")
	section, _, _ = strings.Cut(section, "\n### ")
	_, caddyfile, _ := strings.Cut(section, "```caddyfile\n")
	caddyfile, _, closed := strings.Cut(caddyfile, "```\n")
	if !found || !closed {
		t.Fatalf("there is no Caddyfile in %s", heading)
	}
	if login == nil {
		login = func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-User-Id", r.Header.Get("X-Login"))
			w.Header().Set("X-Place", r.Header.Get("X-Where"))
		}
	}
	service := httptest.NewServer(login)
	t.Cleanup(service.Close)
	s := serve(t, "SITE {\nrespond ok\n}") // any, for a port
	_, port, _ := net.SplitHostPort(s.addr)
	caddyfile = regexp.MustCompile(`(?m)^[\w.]+\.example\.com`).ReplaceAllString(caddyfile, "http://$0:"+port)
	replace = append(replace, "login:9000", service.Listener.Addr().String(), "origin:8080", upstream(t), "panel:8080", upstream(t))
	if err := s.load(strings.NewReplacer(replace...).Replace(caddyfile)); err != nil {
		t.Fatal(err)
	}
	return s
}

// plays has somebody start another title, and expects a status.
func (s *server) plays(want int, host, user, title string, fields ...string) {
	s.t.Helper()
	s.call(want, "GET", "/vod/"+title+"/1.ts", append(fields, "Host", host, "X-Login", user)...)
}

func TestRecipeForTenantsOnOneRedis(t *testing.T) {
	s := cook(t, "Several sites on one Redis", nil, "10.0.0.1:6379", redistest.Start(t).Addr)
	const www, tv, blue = "www.red.example.com", "tv.red.example.com", "blue.example.com"
	s.plays(200, www, "alice", "1")
	s.plays(200, tv, "alice", "2")
	s.plays(429, www, "alice", "3")
	s.plays(429, tv, "alice", "3")
	s.plays(200, blue, "alice", "1") // somebody else
	s.plays(200, blue, "alice", "2")
	s.plays(429, blue, "alice", "3")
	s.plays(200, www, "bob", "1")
}

func TestRecipeForTwoAtHomeAndOneAway(t *testing.T) {
	const host = "video.example.com"
	s := cook(t, "Two at home, one away", nil)
	s.plays(200, host, "alice", "1", "X-Where", "home")
	s.plays(200, host, "alice", "2", "X-Where", "home")
	s.plays(429, host, "alice", "3", "X-Where", "home")
	s.plays(200, host, "alice", "4", "X-Where", "elsewhere")
	s.plays(429, host, "alice", "5", "X-Where", "elsewhere")
	s.plays(200, host, "bob", "1", "X-Where", "elsewhere")
	s.plays(429, host, "bob", "2", "X-Where", "elsewhere")
	s.plays(200, host, "bob", "3", "X-Where", "home")
	// The place is what the login service says.
	s.plays(429, host, "bob", "4", "X-Place", "home")
}

func TestRecipeForTwoButOneOnATelevision(t *testing.T) {
	const host, tv = "video.example.com", "Mozilla/5.0 (SMART-TV; Tizen 8)"
	s := cook(t, "Two, but one on a television", nil)
	s.plays(200, host, "alice", "1", "User-Agent", tv)
	s.plays(429, host, "alice", "2", "User-Agent", tv)
	s.plays(200, host, "alice", "3", "User-Agent", "phone")
	s.plays(429, host, "alice", "4", "User-Agent", "laptop")
	s.plays(200, host, "bob", "1", "User-Agent", "phone")
	s.plays(200, host, "bob", "2", "User-Agent", "laptop")
}

// User and password are in the path, and a wrong one takes nobody's slot.
func TestRecipeForAnIPTVPanel(t *testing.T) {
	const host = "iptv.example.com"
	inPath := regexp.MustCompile(`^/live/([^/]+)/([^/]+)/`)
	s := cook(t, "Boxes without cookies: IPTV", func(w http.ResponseWriter, r *http.Request) {
		m := inPath.FindStringSubmatch(r.Header.Get("X-Forwarded-Uri"))
		if m == nil || m[2] != "secret-of-"+m[1] {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		w.Header().Set("X-User-Id", m[1])
	})
	call := func(want int, password, channel, box string) http.Header {
		t.Helper()
		h, _ := s.call(want, "GET", "/live/alice/"+password+"/"+channel, "Host", host, "User-Agent", box)
		return h
	}
	for n := range 5 {
		call(403, "wrong", fmt.Sprintf("%d.ts", n), fmt.Sprint("box", n))
		call(403, "wrong", fmt.Sprintf("%d.m3u8", n), fmt.Sprint("box", n))
	}
	// With the right password all is as it should be, and under a token, too.
	to := call(302, "secret-of-alice", "7.m3u8", "box1").Get("Location")
	call(200, "secret-of-alice", to, "box1")
	call(403, "wrong", to, "box1")
	call(200, "secret-of-alice", "7.ts", "box1")
	call(200, "secret-of-alice", "8.ts", "box1") // zaps
	call(200, "secret-of-alice", "9.ts", "box2")
	call(429, "secret-of-alice", "10.ts", "box3")
}

// inBuckets is a user whose bucket is one of some.
func inBuckets(from, to int) string {
	for n := 0; ; n++ {
		user := fmt.Sprint("user", n)
		if b, _ := strconv.Atoi(bucket(user)); b >= from && b <= to {
			return user
		}
	}
}

func TestRecipeForOnePerCentFirst(t *testing.T) {
	const host, heading = "video.example.com", "Enforce for one per cent first"
	one, ten, half, all := inBuckets(0, 0), inBuckets(1, 9), inBuckets(10, 49), inBuckets(50, 99)
	for _, stage := range []struct {
		line     string
		enforced []string
	}{
		{"0 enforce", []string{one}},
		{"~^[0-9]$ enforce", []string{one, ten}},
		{"~^[1-4]?[0-9]$ enforce", []string{one, ten, half}},
	} {
		if text := readDoc(t); !strings.Contains(text, stage.line) {
			t.Errorf("docs/configuration.md has no %q", stage.line)
		}
		s := cook(t, heading, nil, "\t0 enforce", "\t"+stage.line)
		for _, user := range []string{one, ten, half, all} {
			for n := range 3 {
				s.plays(200, host, user, strconv.Itoa(n))
			}
			want, api := 200, 201
			if slices.Contains(stage.enforced, user) {
				want, api = 429, 429
			}
			s.plays(want, host, user, "more")
			s.call(api, "POST", "/guards", "Host", host, "X-Login", user)
		}
	}
}

func TestRecipeForAPartOfASite(t *testing.T) {
	const host = "video.example.com"
	s := cook(t, "A part of a site", nil)
	h, _ := s.call(302, "GET", "/vod/alien/master.m3u8", "Host", host, "X-Login", "alice")
	s.call(200, "GET", "/vod/alien/"+h.Get("Location"), "Host", host, "X-Login", "alice")
	s.plays(200, host, "alice", "alien")
	_, body := s.call(200, "GET", "/vod/guards", "Host", host, "X-Login", "alice")
	if !strings.Contains(body, `"streamId":"alien"`) {
		t.Errorf("alice holds %s", body)
	}
	if h, _ := s.call(201, "POST", "/vod/guards", "Host", host, "X-Login", "alice"); !strings.HasPrefix(h.Get("Location"), "/vod/guards/") {
		t.Errorf("the guard is at %s", h.Get("Location"))
	}
	s.call(404, "GET", "/guards", "Host", host, "X-Login", "alice")
}
