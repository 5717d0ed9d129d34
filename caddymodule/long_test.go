package caddymodule

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/streamguard/streamguard/api"
	"github.com/streamguard/streamguard/redisstore/redistest"
)

// channels is an origin of answers without a length: /fast never waits for its client,
// /segment ends soon.
type channels struct {
	*httptest.Server
	mu      sync.Mutex
	sending map[string]int // by path
}

func newChannels(t *testing.T) *channels {
	c := &channels{sending: make(map[string]int)}
	c.Server = httptest.NewServer(c)
	t.Cleanup(func() {
		c.CloseClientConnections()
		c.Close()
	})
	return c
}

func (c *channels) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasSuffix(r.URL.Path, ".m3u8") {
		io.WriteString(w, "#EXTM3U\n#EXT-X-TARGETDURATION:8\n#EXTINF:8,\nsegment1.ts\n")
		return
	}
	c.is(r.URL.Path, 1)
	defer c.is(r.URL.Path, -1)
	packet, pause := make([]byte, 7*188), 10*time.Millisecond
	if strings.Contains(r.URL.Path, "fast") {
		packet, pause = make([]byte, 64<<10), 0
	}
	for n := 0; r.Context().Err() == nil; n++ {
		if strings.Contains(r.URL.Path, "segment") && n == 5 {
			return
		}
		if _, err := w.Write(packet); err != nil {
			return
		}
		http.NewResponseController(w).Flush()
		time.Sleep(pause)
	}
}

func (c *channels) is(path string, more int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sending[path] += more
}

// sends waits until so many answers of a path are being sent.
func (c *channels) sends(t *testing.T, path string, want int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d answers of %s", want, path), func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.sending[path] == want
	})
}

// serve starts a gate in front of the channels.
func (c *channels) serve(t *testing.T, options string) *server {
	return serve(t, c.site(options))
}

func (c *channels) site(options string) string {
	return "{\ngrace_period 1h\nservers {\nprotocols h1 h2c\n}\n}\nSITE {\nstream_guard {\n" + user + options + "\n}\nreverse_proxy " + strings.TrimPrefix(c.URL, "http://") + "\n}"
}

// watch opens an endless answer, and reads it until the body is closed.
func (p *app) watch(path string) *http.Response {
	p.s.t.Helper()
	resp := p.open(path)
	if _, err := io.ReadFull(resp.Body, make([]byte, 188)); err != nil {
		p.s.t.Fatal(err)
	}
	go io.Copy(io.Discard, resp.Body)
	return resp
}

// refused expects that a path is refused, and returns the code.
func (p *app) refused(path string) string {
	p.s.t.Helper()
	r, _ := http.NewRequest("GET", "http://"+p.s.addr+path, nil)
	r.Header = p.more.Clone()
	r.Header.Set("X-User-Id", p.user)
	resp, err := p.RoundTrip(r)
	if err != nil {
		p.s.t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusTooManyRequests {
		p.s.t.Fatalf("%s of %s: %d, want 429", path, p.user, resp.StatusCode)
	}
	var refusal struct{ ErrorCode string }
	decode(p.s.t, resp.Body, &refusal)
	return refusal.ErrorCode
}

// guardsOf is what GET /guards says of a user.
func (s *server) guardsOf(user string) []api.Guard {
	s.t.Helper()
	_, body := s.call(200, "GET", "/guards", "X-User-Id", user)
	var answer api.Guards
	decode(s.t, strings.NewReader(body), &answer)
	return answer.Guards
}

func byVersion(t *testing.T, test func(t *testing.T, change ...func(*http.Transport))) {
	t.Run("HTTP/1.1", func(t *testing.T) { test(t) })
	t.Run("HTTP/2", func(t *testing.T) { test(t, overHTTP2) })
}

func TestALongAnswerKeepsItsGuardForAsLongAsItLasts(t *testing.T) {
	c := newChannels(t)
	film := filepath.Join(t.TempDir(), "film.mp4")
	if err := os.WriteFile(film, make([]byte, 64<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	site := strings.Replace(c.site("limit 1\ninterval 1s\nttl 2s"), "reverse_proxy", "root "+filepath.Dir(film)+"\nfile_server /film.mp4\nreverse_proxy", 1)
	s := serve(t, site)
	type viewer struct {
		name, path string
		change     []func(*http.Transport)
	}
	viewers := []viewer{
		{"channel", "/live/1.ts", nil},
		{"channel by HTTP/2", "/live/1.ts", []func(*http.Transport){overHTTP2}},
		{"named", "/live/1.ts?CMCD=sid%3D%22a%22", nil},
		{"does not read", "/fast/1.ts", nil},
		{"a film that is not read", "/film.mp4", nil},
		{"a film by HTTP/2", "/film.mp4", []func(*http.Transport){overHTTP2}},
	}
	var opened []*http.Response
	for _, v := range viewers {
		if strings.Contains(v.path, "live") {
			opened = append(opened, newApp(s, v.name, v.change...).watch(v.path))
		} else {
			opened = append(opened, newApp(s, v.name, v.change...).open(v.path))
		}
	}
	for i, v := range viewers {
		eventually(t, v.name+" to outlast its ttl", func() bool {
			g := s.guardsOf(v.name)
			if len(g) != 1 {
				t.Fatalf("%s holds %+v", v.name, g)
			}
			return g[0].ExpiresAt.Sub(g[0].CreatedAt) > 5*time.Second
		})
		newApp(s, v.name).refused("/other/1.ts?CMCD=sid%3D%22b%22")
		opened[i].Body.Close()
	}
	for _, v := range viewers {
		eventually(t, "the end of "+v.name, func() bool { return len(s.guardsOf(v.name)) == 0 })
	}
}

func TestAChannelThatIsLeftFreesItsSlot(t *testing.T) {
	byVersion(t, func(t *testing.T, change ...func(*http.Transport)) {
		c := newChannels(t)
		s := c.serve(t, "limit 1")
		for _, path := range []string{"/live/1.ts", "/live/1.ts?CMCD=sid%3D%22a%22"} {
			p := newApp(s, path+t.Name(), change...)
			p.watch(path).Body.Close()
			other := newApp(s, p.user, change...)
			other.more.Set("User-Agent", "another box")
			eventually(t, "the guard is closed", func() bool {
				g := s.guardsOf(p.user)
				return len(g) == 1 && g[0].State == "closed"
			})
			other.watch("/live/9.ts?CMCD=sid%3D%22b%22").Body.Close()
		}
	})
}

func TestARevokedChannelIsCut(t *testing.T) {
	byVersion(t, func(t *testing.T, change ...func(*http.Transport)) {
		c := newChannels(t)
		s := c.serve(t, "limit 5")
		for _, path := range []string{"/live/1.ts", "/fast/1.ts", "/fast/2.ts?CMCD=sid%3D%22a%22"} {
			t.Run(path[1:5], func(t *testing.T) {
				t.Parallel()
				p := newApp(s, t.Name(), change...)
				if strings.HasPrefix(path, "/fast") { // a write to it is under way forever
					p.open(path)
				} else {
					p.watch(path)
				}
				origin, _, _ := strings.Cut(path, "?")
				c.sends(t, origin, 1)
				administer[any](t, 200, "DELETE", "/stream_guard/users/"+url.PathEscape(p.user), "")
				c.sends(t, origin, 0)
				// On the same connection, where that is left.
				if code := p.refused(path); code != "GUARD_REVOKED" {
					t.Errorf("%s: %s", path, code)
				}
				p.get("/live/segment.ts?CMCD=sid%3D%22another%22")
			})
		}
	})
}

// The connection of an answer that was cut carries nothing more.
func TestACutAnswerEndsItsConnection(t *testing.T) {
	c := newChannels(t)
	s := c.serve(t, "limit 1 replace")
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for range 2 {
		fmt.Fprintf(conn, "GET /live/1.ts HTTP/1.1\r\nHost: %s\r\nX-User-Id: u\r\nUser-Agent: a\r\n\r\n", s.addr)
	}
	c.sends(t, "/live/1.ts", 1)
	other := newApp(s, "u")
	resp := other.watch("/live/2.ts")
	answers := bufio.NewReader(conn)
	first, err := http.ReadResponse(answers, nil)
	if err != nil || first.StatusCode != 200 {
		t.Fatal(first, err)
	}
	if n, err := io.Copy(io.Discard, first.Body); err == nil {
		t.Errorf("the answer that was cut is whole, after %d bytes", n)
	}
	if next, err := http.ReadResponse(answers, nil); err == nil {
		t.Errorf("behind it comes %d", next.StatusCode)
	}
	p := newApp(s, "u")
	p.more.Set("User-Agent", "a")
	if code := p.refused("/live/1.ts"); code != "GUARD_REPLACED" {
		t.Error(code)
	}
	c.sends(t, "/live/2.ts", 1)
	resp.Body.Close()
}

func TestAChannelIsCountedAfterAReloadWithAnotherStore(t *testing.T) {
	redis := redistest.Start(t)
	c := newChannels(t)
	site := func(pool int) string {
		return c.site(fmt.Sprintf("limit 1\ninterval 1s\nttl 2s\nstore redis redis://%s {\ntimeout 10s\npool_size %d\n}", redis.Addr, pool))
	}
	s := serve(t, site(5))
	resp := newApp(s, "u").watch("/live/1.ts")
	if err := s.load(site(6)); err != nil {
		t.Fatal(err)
	}
	made := s.guardsOf("u")
	eventually(t, "the guard outlasts its ttl", func() bool {
		g := s.guardsOf("u")
		if len(g) != 1 || !g[0].CreatedAt.Equal(made[0].CreatedAt) {
			t.Fatalf("%+v, before the reload %+v", g, made)
		}
		return g[0].ExpiresAt.Sub(g[0].CreatedAt) > 5*time.Second
	})
	administer[any](t, 200, "DELETE", "/stream_guard/users/u", "")
	c.sends(t, "/live/1.ts", 0)
	resp.Body.Close()
}

func TestAnotherChannelIsAnotherPlayback(t *testing.T) {
	redis := redistest.Start(t)
	c := newChannels(t)
	site := c.site("limit 1\nstore redis redis://" + redis.Addr + " {\ntimeout 10s\n}")
	origin := site[strings.Index(site, "reverse_proxy"):]
	site = strings.TrimSuffix(site, origin) + "handle_path /strip/* {\n" + strings.Replace(origin, "\n}", "\n}\n", 1) + origin // what is behind the gate changes its request
	s := serve(t, site)
	for _, folder := range []string{"/live", "/strip/live"} {
		user := "u" + folder
		box := newApp(s, user)
		first := box.watch(folder + "/1.ts")
		second := newApp(s, user)
		second.refused(folder + "/2.ts") // in the first second, too
		if g := s.guardsOf(user); len(g) != 1 {
			t.Errorf("%+v", g)
		}
		// A reconnection is no other channel.
		again := second.watch(folder + "/1.ts")
		again.Body.Close()
		// Nor is the next one, when the last is over.
		before := "/live/1.ts"
		for _, channel := range []string{"/2.ts", "/3.ts", "/1.ts"} {
			first.Body.Close()
			box.CloseIdleConnections()
			c.sends(t, before, 0) // so long a busy machine takes to notice it
			first = box.watch(folder + channel)
			before = "/live" + channel
		}
		first.Body.Close()
	}
}

// Segments without a length whose manifest the gate has not seen, several at once.
func TestSegmentsOfWhichNobodyKnowsRefuseNoOther(t *testing.T) {
	c := newChannels(t)
	s := c.serve(t, "limit 1")
	for round := range 5 {
		var all sync.WaitGroup
		for i := range 4 {
			p := newApp(s, "u")
			all.Go(func() { p.get(fmt.Sprintf("/live/segment%d.ts", 4*round+i)) })
		}
		all.Wait()
	}
	if g := s.guardsOf("u"); len(g) != 1 {
		t.Errorf("%+v", g)
	}
}

// A film's subtitles are no other channel, though its answer seems to be endless.
func TestWhatBelongsToAFilmDoesNotWaitForIt(t *testing.T) {
	c := newChannels(t)
	s := c.serve(t, "limit 1")
	film := newApp(s, "u").watch("/live/films/film/1.mkv")
	newApp(s, "u").get("/live/films/film/segment1.vtt")
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sending["/live/films/film/1.mkv"] != 1 {
		t.Error("the film has ended")
	}
	film.Body.Close()
}

func decode(t *testing.T, from io.Reader, into any) {
	t.Helper()
	if err := json.NewDecoder(from).Decode(into); err != nil {
		t.Fatal(err)
	}
}
