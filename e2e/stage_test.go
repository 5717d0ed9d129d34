package e2e

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// stage is an origin for players in a browser: their pages, the modules that
// docs/players.md consists of, the sample media, and live channels of it.
type stage struct {
	url  string // of the origin itself, which no gate is in front of
	mux  *http.ServeMux
	mu   sync.Mutex
	uris map[string][]string // that were asked for, by user
}

func newStage(t *testing.T) *stage {
	t.Helper()
	mux := http.NewServeMux()
	s := &stage{mux: mux, uris: make(map[string][]string)}
	modules := modules(t)
	mux.Handle("/player/", http.StripPrefix("/player/", http.FileServer(http.Dir("browser"))))
	mux.Handle("/media/", http.FileServer(http.Dir(root+"/testdata")))
	mux.HandleFunc("/apart/", apart)
	mux.HandleFunc("/interrupted/{by}/", s.interrupted)
	mux.HandleFunc("/ads/", ad)
	mux.Handle("/live/{channel}/", newLive())
	mux.HandleFunc("/docs/{module}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/javascript")
		fmt.Fprint(w, modules[r.PathValue("module")])
	})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.note(r)
		if r.URL.Path != "/player/page.html" { // such a page would not be kept for a user who goes back
			w.Header().Set("Cache-Control", "no-store")
		}
		if origin := r.Header.Get("Origin"); origin != "" {
			w.Header().Set("Access-Control-Allow-Origin", origin)
			w.Header().Set("Access-Control-Allow-Credentials", "true")
			w.Header().Set("Access-Control-Allow-Headers", "Range")
		}
		if r.Method == http.MethodOptions {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	s.url = server.URL
	return s
}

// beside are the URLs in the sample's manifests of what is not a manifest.
var beside = regexp.MustCompile(`(?m)(^|"|>)(s[0-9$]|subs/)`)

// apart serves the sample media with the manifests in a folder of their own, out
// of which their URLs climb.
func apart(w http.ResponseWriter, r *http.Request) {
	const media = root + "/testdata/media/cmaf/"
	name, list := strings.CutPrefix(r.URL.Path, "/apart/lists/")
	text, err := os.ReadFile(media + name)
	if !list || err != nil {
		http.ServeFile(w, r, media+strings.TrimPrefix(r.URL.Path, "/apart/"))
		return
	}
	w.Header().Set("Content-Type", "application/vnd.apple.mpegurl")
	if strings.HasSuffix(name, ".mpd") {
		w.Header().Set("Content-Type", "application/dash+xml")
	}
	w.Write(beside.ReplaceAll(text, []byte("$1../$2")))
}

// note keeps what a user asks for. A browser says by a cookie who that is; for
// other players it is the host that they ask.
func (s *stage) note(r *http.Request) {
	user, _, _ := net.SplitHostPort(r.Header.Get("X-Forwarded-Host"))
	if cookie, err := r.Cookie("user"); err == nil {
		user = cookie.Value
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.uris[user] = append(s.uris[user], r.RequestURI)
}

// asked says how often a user has asked for something.
func (s *stage) asked(user, part string) (times int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, uri := range s.uris[user] {
		if strings.Contains(uri, part) {
			times++
		}
	}
	return times
}

// asksAgain waits until a user asks for something from now on.
func (s *stage) asksAgain(t *testing.T, user, part string) {
	t.Helper()
	before := s.asked(user, part)
	eventually(t, user+" asks for "+part, func() bool { return s.asked(user, part) > before })
}

// site is a Caddyfile with these options of stream_guard in front of the stage.
// Who is watching is said as with note, or by the test itself with a header.
func (s *stage) site(options ...string) string {
	return fmt.Sprintf(`:8090 {
	map {cookie.user} {player} {
		"" {host}
		default {cookie.user}
	}
	map {header.X-User-Id} {viewer} {
		"" {player}
		default {header.X-User-Id}
	}
	log_append user {viewer}
	stream_guard {
		user {viewer}
		cors %s
		%s
	}
	reverse_proxy %s
	log
}
`, s.url, strings.Join(withPlayback(options), "\n\t\t"), s.url)
}

var (
	fence  = regexp.MustCompile("(?m)^```(js|javascript)\\b")
	module = regexp.MustCompile("(?ms)^```js (\\S+)\n(.*?)^```$")
)

// modules are the blocks of docs/players.md, by name.
func modules(t *testing.T) map[string]string {
	t.Helper()
	doc, err := os.ReadFile(root + "/docs/players.md")
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]string)
	for _, m := range module.FindAllStringSubmatch(string(doc), -1) {
		found[m[1]] = m[2]
	}
	if blocks := len(fence.FindAll(doc, -1)); blocks == 0 || blocks != len(found) {
		t.Fatalf("docs/players.md has %d blocks of JavaScript, of which %d have a name of their own", blocks, len(found))
	}
	return found
}
