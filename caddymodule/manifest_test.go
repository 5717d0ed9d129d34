package caddymodule

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"hash/maphash"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/klauspost/compress/zstd"
	"go.uber.org/zap"

	"github.com/streamguard/streamguard/audience"
	"github.com/streamguard/streamguard/gate"
	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/lease"
	"github.com/streamguard/streamguard/memstore"
	"github.com/streamguard/streamguard/playback"
)

func TestManifestsCarryTheTokenWhereAURLWouldLoseIt(t *testing.T) {
	const head = "#EXTM3U\n#EXT-X-TARGETDURATION:4\n"
	const playlist = head + "/v/x/1.ts\n2.ts\n../y/3.ts\n"
	large := strings.Repeat("/v/x/1.ts\n", playback.MaxManifest/10+1)
	for _, c := range []struct {
		name   string
		origin func(http.ResponseWriter, *http.Request)
		want   string
	}{
		{"whole", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", strconv.Itoa(len(playlist)))
			w.Header().Set("Content-Digest", "sha-256=:x:")
			w.Write([]byte(playlist))
		}, head + "/v/x/TOKEN/1.ts\n2.ts\n../../y/TOKEN/3.ts\n"},
		{"in pieces", func(w http.ResponseWriter, r *http.Request) {
			for i := range len(playlist) {
				w.Write([]byte{playlist[i]})
				http.NewResponseController(w).Flush()
			}
		}, head + "/v/x/TOKEN/1.ts\n2.ts\n../../y/TOKEN/3.ts\n"},
		{"stored as gzip", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			z.Write([]byte(playlist))
			z.Close()
		}, head + "/v/x/TOKEN/1.ts\n2.ts\n../../y/TOKEN/3.ts\n"},
		{"compressed all the same", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "br")
			w.Write([]byte(playlist))
		}, playlist},
		{"an error page", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(404)
			w.Write([]byte(playlist))
		}, playlist},
		{"too large", func(w http.ResponseWriter, r *http.Request) {
			for b := []byte(large); len(b) > 0; {
				n := min(len(b), 1<<16)
				w.Write(b[:n])
				b = b[n:]
			}
		}, large},
		{"nothing", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(200) }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Accept-Encoding") == "br" || r.Header.Get("Range") != "" {
					t.Errorf("the origin was asked for %v", r.Header)
				}
				c.origin(w, r)
			}))
			defer origin.Close()
			s := serve(t, "SITE {\nstream_guard {\n"+user+"playback auto\nstore memory "+strings.ReplaceAll(t.Name(), " ", "_")+"\n}\nreverse_proxy "+origin.URL+"\n}")
			status := 200
			if c.name == "an error page" {
				status = 404
			}
			token := "~" + guard.NewID("u", "").String()
			h, body := s.call(status, "GET", "/v/x/"+token+"/m.m3u8", "Accept-Encoding", "br", "Range", "bytes=0-")
			if want := strings.ReplaceAll(c.want, "TOKEN", token); body != want {
				t.Errorf("%d bytes, want %d:\n%.200s", len(body), len(want), body)
			}
			if body != c.want && h.Get("Content-Digest") != "" {
				t.Errorf("a digest of something else: %v", h)
			}
			if h, _ := s.call(status, "HEAD", "/v/x/"+token+"/m.m3u8"); status == 200 && body != c.want && h.Get("Content-Length") == strconv.Itoa(len(playlist)) {
				t.Errorf("HEAD promises the length of something else: %v", h)
			}
		})
	}
}

// encode would find nothing to do behind the gate, which asks for plain text.
func TestManifestsWithATokenAreCompressed(t *testing.T) {
	s := serve(t, "SITE {\nencode gzip {\nmatch header Content-Type *\n}\nstream_guard {\n"+user+"playback auto\n}\nroot ../testdata\nfile_server\n}")
	h, _ := s.call(302, "GET", "/media/cmaf/manifest.mpd")
	h, body := s.call(200, "GET", "/media/cmaf/"+h.Get("Location"), "Accept-Encoding", "gzip")
	z, err := gzip.NewReader(strings.NewReader(body))
	if err != nil {
		t.Fatalf("%v: %v\n%.100s", err, h, body)
	}
	if mpd, err := io.ReadAll(z); err != nil || !bytes.Contains(mpd, []byte("<BaseURL>./</BaseURL>")) {
		t.Errorf("error %v\n%s", err, mpd)
	}
}

// What FFmpeg's DASH reader needs to carry the token.
func TestMPDWithoutABaseIsGivenItsOwn(t *testing.T) {
	withGate(t, Handler{Playback: "auto"}, func(g *site) {
		token := "~" + guard.NewID("u", "").String()
		g.body = []byte("<MPD><Period/></MPD>")
		if body := g.get(200, "/v/x/"+token+"/m.mpd").Body.Bytes(); !bytes.Contains(body, []byte("<BaseURL>./</BaseURL><Period/>")) {
			t.Errorf("%s", body)
		}
	})
}

// unpacked is what a client reads.
func unpacked(t *testing.T, h http.Header, body string) string {
	t.Helper()
	switch coding := h.Get("Content-Encoding"); coding {
	case "gzip":
		z, err := gzip.NewReader(strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(z)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	case "zstd":
		z, err := zstd.NewReader(strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer z.Close()
		text, err := io.ReadAll(z)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	case "":
		return body
	default:
		t.Fatalf("Content-Encoding %q", coding)
		return ""
	}
}

// dvr is the playlist of a channel of some hours, with its URLs behind a prefix.
func dvr(prefix string) string {
	var b strings.Builder
	b.WriteString("#EXTM3U\n#EXT-X-TARGETDURATION:2\n")
	for n := range 7200 {
		fmt.Fprintf(&b, "#EXT-X-PROGRAM-DATE-TIME:2026-01-01T%02d:%02d:%02dZ\n#EXTINF:2.000,\n%ssegment-%07d.m4s\n", n/1800, n/30%60, n*2%60, prefix, n)
	}
	return b.String()
}

func TestManifestsAreAsSmallAsWithoutTheGate(t *testing.T) {
	relative, absolute := dvr(""), dvr("/v/x/")
	var asked http.Header
	bodies := map[string]map[string][]byte{} // by path and coding
	for path, text := range map[string]string{"/v/x/relative.m3u8": relative, "/v/x/absolute.m3u8": absolute} {
		bodies[path] = map[string][]byte{}
		for _, coding := range []string{"", "gzip", "zstd", "br"} {
			bodies[path][coding] = pack([]byte(text), coding)
		}
	}
	force := "" // coding that the origin answers with whatever it is asked for
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r.Header.Clone()
		coding := force
		for _, c := range []string{"br", "zstd", "gzip"} {
			if force == "" && strings.Contains(r.Header.Get("Accept-Encoding"), c) {
				coding = c
				break
			}
		}
		w.Header().Set("Etag", `"1"`)
		w.Header().Set("Accept-Ranges", "bytes")
		w.Header().Set("Content-Digest", "sha-256=:x:")
		w.Header().Set("Content-Type", "application/vnd.apple.mpegurl")
		if r.Header.Get("If-None-Match") != "" {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		if coding != "" {
			w.Header().Set("Content-Encoding", coding)
		}
		body := bodies[r.URL.Path][coding]
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		w.Write(body)
	}))
	defer origin.Close()
	const gate = "stream_guard {\n" + user + "playback auto\n}\n"
	plain := "reverse_proxy " + origin.URL + " {\ntransport http {\ncompression off\n}\n}\n}"
	token := "~" + guard.NewID("u", "").String()
	for name, site := range map[string]string{
		"alone":         gate + plain,
		"behind encode": "encode gzip {\nmatch header Content-Type application/vnd.apple.mpegurl*\n}\n" + gate + plain,
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, "{\nservers {\nprotocols h1 h2c\n}\n}\nSITE {\n"+site)
			for version, client := range speaking(t) {
				for _, c := range []struct{ accept, force, asked, coding string }{
					{"", "", "", ""},
					{"gzip, deflate, br", "", "gzip", "gzip"},
					{"gzip, deflate, br, zstd", "", "zstd, gzip", "zstd"},
					{"gzip;q=0, zstd;q=0.5", "", "zstd", "zstd"},
					{"br", "", "", ""},
					{"*", "", "", ""},
					{"", "gzip", "", "gzip"}, // stored so
					{"zstd", "gzip", "zstd", "gzip"},
				} {
					force = c.force
					if name != "alone" && (c.accept == "" || c.accept == "br" || c.accept == "*" || strings.HasPrefix(c.accept, "gzip;q=0")) {
						continue // encode does nothing there
					}
					for range 2 { // the second time it is remembered
						what := fmt.Sprintf("%s: accepting %q of %q", version, c.accept, c.force)
						accept := []string{"Range", "bytes=0-1", "If-Range", `"1"`}
						if c.accept != "" {
							accept = append(accept, "Accept-Encoding", c.accept)
						}
						h, body := s.over(client, 200, "GET", "/v/x/"+token+"/relative.m3u8", accept...)
						if asked.Get("Accept-Encoding") != c.asked || asked.Get("Range") != "" || asked.Get("If-Range") != "" {
							t.Errorf("%s: the origin was asked for %v", what, asked)
						}
						want := bodies["/v/x/relative.m3u8"][c.coding]
						if body != string(want) || h.Get("Content-Encoding") != c.coding || h.Get("Content-Length") != strconv.Itoa(len(want)) ||
							h.Get("Etag") != `"1"` || h.Get("Content-Digest") == "" || h.Get("Accept-Ranges") != "" {
							t.Errorf("%s: %d bytes, want %d: %v", what, len(body), len(want), h)
						}
						h, body = s.over(client, 200, "GET", "/v/x/"+token+"/absolute.m3u8", accept...)
						if text := unpacked(t, h, body); text != strings.ReplaceAll(absolute, "/v/x/", "/v/x/"+token+"/") {
							t.Errorf("%s: %.200s", what, text)
						}
						if c.force == "" && h.Get("Content-Encoding") != c.coding || c.coding != "" && c.force == "" && len(body) > len(bodies["/v/x/absolute.m3u8"][c.coding])*5/4 ||
							h.Get("Etag") != `W/"1"` || h.Get("Content-Digest") != "" {
							t.Errorf("%s: %d bytes: %v", what, len(body), h)
						}
					}
				}
				force = ""
				h, _ := s.over(client, 304, "GET", "/v/x/"+token+"/relative.m3u8", "If-None-Match", `"1"`)
				if h.Get("Etag") != `"1"` || asked.Get("If-None-Match") != `"1"` {
					t.Errorf("%s: %v, the origin was asked %v", version, h, asked)
				}
				force = "br"
				if _, body := s.over(client, 200, "GET", "/v/x/"+token+"/absolute.m3u8", "Accept-Encoding", "gzip"); body != absolute {
					t.Errorf("%s: what the gate cannot read has become %.100s", version, body)
				}
			}
		})
	}
	// Only where somebody asks for it to be packed is it packed.
	force = "identity"
	for path := range bodies {
		bodies[path]["identity"] = bodies[path][""]
	}
	s := serve(t, "SITE {\nencode gzip {\nmatch header Content-Type application/vnd.apple.mpegurl*\n}\n"+gate+plain)
	if h, body := s.call(200, "GET", "/v/x/"+token+"/absolute.m3u8", "Accept-Encoding", "gzip"); h.Get("Content-Encoding") != "gzip" || len(body) > len(absolute)/4 {
		t.Errorf("behind encode: %d bytes, %v", len(body), h)
	}
}

// A body that would be larger than a manifest may be, unpacked or with the token
// in it, passes as it is, and the log says so, once.
func TestManifestsThatAreTooLargePassAsTheyAre(t *testing.T) {
	bomb := strings.Repeat("/v/x/1.ts\n", playback.MaxManifest/10+1)
	for _, c := range []struct{ name, coding, body, warning string }{
		{"a bomb", "gzip", string(pack([]byte(bomb), "gzip")), "bytes"},
		{"another", "zstd", string(pack([]byte(bomb), "zstd")), "size"},
		{"no gzip", "gzip", "#EXTM3U\n/v/x/1.ts\n", "gzip"},
		{"cut off", "gzip", string(pack([]byte(bomb[:1000]), "gzip")[:20]), "EOF"},
		{"no zstd", "zstd", "#EXTM3U\n/v/x/1.ts\n", "magic"},
		{"too much to write", "", strings.Repeat("/1.ts\n", playback.MaxManifest/10), "bytes"},
	} {
		withGate(t, Handler{Playback: "auto"}, func(g *site) {
			token := "~" + guard.NewID("u", "").String()
			g.body = []byte(c.body)
			if c.coding != "" {
				g.header.Set("Content-Encoding", c.coding)
			}
			for range 2 {
				w := g.get(200, "/v/x/"+token+"/m.m3u8", "Accept-Encoding", "gzip, zstd")
				if w.Body.String() != c.body || w.Header().Get("Content-Encoding") != c.coding {
					t.Errorf("%s: %d bytes, want %d: %v", c.name, w.Body.Len(), len(c.body), w.Header())
				}
			}
			var warnings []string
			for _, entry := range g.logs.FilterMessage("the token cannot be written into a manifest").All() {
				warnings = append(warnings, fmt.Sprint(entry.ContextMap()["error"]))
			}
			if len(warnings) != 1 || !strings.Contains(warnings[0], c.warning) {
				t.Errorf("%s: %q, want one of %q", c.name, warnings, c.warning)
			}
		})
	}
}

// That nothing was to be written into a body says nothing of the same body in
// another place.
func TestWhatIsRememberedOfAManifestIsOfItsPlace(t *testing.T) {
	withGate(t, Handler{Playback: "auto"}, func(g *site) {
		token := "~" + guard.NewID("u", "").String()
		const head = "#EXTM3U\n#EXT-X-TARGETDURATION:4\n"
		g.body = []byte(head + "../1.ts\nhttps://cdn.example/2.ts\n")
		for _, c := range []struct{ path, host, want string }{
			{"/a/" + token + "/b/m.m3u8", "h", head + "../1.ts\nhttps://cdn.example/2.ts\n"},
			{"/a/b/" + token + "/m.m3u8", "h", head + "../../" + token + "/1.ts\nhttps://cdn.example/2.ts\n"},
			{"/a/" + token + "/b/m.m3u8", "cdn.example", head + "../1.ts\nhttps://cdn.example/" + token + "/2.ts\n"},
		} {
			for range 2 {
				r := ask("GET", c.path)
				r.Host = c.host
				if got := g.do(r).Body.String(); got != c.want {
					t.Errorf("%s of %s:\n%s", c.path, c.host, got)
				}
			}
		}
		// Another viewer's token is no other place.
		sum := func(id guard.ID) uint64 {
			return g.unwritten.sum("gzip", playback.Place{Path: "/a/~" + id.String() + "/m.m3u8"}, &id, g.body)
		}
		if sum(guard.NewID("u", "")) != sum(guard.NewID("other", "")) {
			t.Error("each viewer's reload is unpacked anew")
		}
	})
}

// What a playlist takes from the query is not the same for the next query.
func TestWhatIsRememberedOfAManifestIsNotOfItsQuery(t *testing.T) {
	withGate(t, Handler{}, func(g *site) {
		token := "~" + guard.NewID("u", "").String()
		g.body = []byte("#EXT-X-DEFINE:QUERYPARAM=\"at\"\n{$at}/1.ts\n")
		for _, c := range []struct{ query, want string }{
			{"?at=v", "{$at}/1.ts\n"}, {"?at=/v", "/v/" + token + "/1.ts\n"}, {"", "{$at}/1.ts\n"},
		} {
			body := g.get(200, "/v/x/"+token+"/m.m3u8"+c.query).Body.String()
			if _, last, _ := strings.Cut(body, "\n"); last != c.want {
				t.Errorf("%s: %q, want %q", c.query, last, c.want)
			}
		}
	})
}

// nginx sends its own name for the upstream as Host where nobody has told it
// otherwise, and the origin behind writes the site's own into a manifest.
func TestTheHostThatATrustedProxyForwardsIsOurs(t *testing.T) {
	const playlist = "#EXTM3U\n#EXT-X-INDEPENDENT-SEGMENTS\nhttps://video.example.com/v/x/v1.m3u8\nhttps://video.example.com:443/v/x/a1.m3u8\nhttps://cdn.example/v/x/v2.m3u8\n"
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, playlist) }))
	defer origin.Close()
	token := "~" + guard.NewID("u", "").String()
	written := strings.NewReplacer("example.com/v/x/", "example.com/v/x/"+token+"/", "example.com:443/v/x/", "example.com:443/v/x/"+token+"/").Replace(playlist)
	for servers, want := range map[string]string{"": playlist, "servers {\ntrusted_proxies static 127.0.0.0/8\n}\n": written} {
		s := serve(t, "{\n"+servers+"}\nSITE {\nstream_guard {\n"+user+"}\nreverse_proxy "+origin.URL+"\n}")
		for _, forwarded := range []string{"video.example.com", "Video.Example.com:443, inner.example"} {
			if _, body := s.call(200, "GET", "/v/x/"+token+"/m.m3u8", "X-Forwarded-Host", forwarded); body != want {
				t.Errorf("%q, forwarded %q:\n%s", servers, forwarded, body)
			}
		}
		if _, body := s.call(200, "GET", "/v/x/"+token+"/m.m3u8"); body != playlist {
			t.Errorf("%q, nothing forwarded:\n%s", servers, body)
		}
	}
}

// A cookie without a Path is sent back from where it was without the token.
func TestCookiesKeepTheirReach(t *testing.T) {
	token := "~" + guard.NewID("u", "").String()
	for _, c := range []struct{ path, cookie, want string }{
		{"/v/x/TOK/m.m3u8", "s=1", "s=1; Path=/v/x"},
		{"/v/x/TOK/m.m3u8", "s=path=/; Secure", "s=path=/; Secure; Path=/v/x"},
		{"/v/x/TOK/m.m3u8", "s=1; Path=; HttpOnly", "s=1; Path=; HttpOnly; Path=/v/x"},
		{"/v/x/TOK/m.m3u8", "s=1; HttpOnly;path=/", "s=1; HttpOnly;path=/"},
		{"/v/TOK/x/y%2Fz/m.mpd?a=/b/c", "s=1", "s=1; Path=/v/x/y%2Fz"},
		{"/TOK/m.m3u8", "s=1", "s=1; Path=/"},
		{"/v;x/TOK/m.m3u8", "s=1", "s=1"}, // no Path can have a semicolon
		{"/v/x/m.m3u8?guard=" + token[1:], "s=1", "s=1"},
		{"/v/x/TOK/1.ts", "s=1", "s=1; Path=/v/x"},
	} {
		for _, method := range []string{"GET", "HEAD"} {
			withGate(t, Handler{Playback: "stream"}, func(g *site) {
				g.header.Add("Set-Cookie", c.cookie)
				g.header.Add("Set-Cookie", "other=1; Path=/elsewhere")
				w := g.do(ask(method, strings.ReplaceAll(c.path, "TOK", token)))
				if got := w.Header()["Set-Cookie"]; len(got) != 2 || got[0] != c.want || got[1] != "other=1; Path=/elsewhere" {
					t.Errorf("%s %s: %q, want %q", method, c.path, got, c.want)
				}
			})
		}
	}
}

// Who asks under many tokens is sent to the URL with the first, where no more
// than that is written into the playlist.
func TestRepeatedTokensMakeNothingLarger(t *testing.T) {
	playlist := "#EXTM3U\n" + strings.Repeat("../1.ts\n", 1000)
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, playlist) }))
	defer origin.Close()
	for _, in := range []string{"", "stream_guard_token\n"} {
		s := serve(t, "SITE {\n"+in+"stream_guard {\n"+user+"playback auto\n}\nreverse_proxy "+origin.URL+"\n}")
		first, other := "/~"+guard.NewID("u", "").String(), "/~"+guard.NewID("u", "").String()
		for path, want := range map[string]string{
			"/v" + first + strings.Repeat(other, 500) + "/x/m.m3u8?a=1":               "/v" + first + "/x/m.m3u8?a=1",
			strings.Repeat(first, 50) + "/m.m3u8":                                     first + "/m.m3u8",
			"/v" + first + "/x" + other + "/m.m3u8":                                   "/v" + first + "/x/m.m3u8",
			"/v" + first + "/x%2F" + strings.Replace(other, "~", "%7e", 1) + "/m.mpd": "/v" + first + "/x%2F/m.mpd",
		} {
			for _, method := range []string{"GET", "HEAD"} {
				h, _ := s.call(307, method, path)
				at, err := url.Parse("http://" + s.addr + path)
				if err == nil {
					at, err = at.Parse(h.Get("Location"))
				}
				if err != nil || at.RequestURI() != want {
					t.Errorf("%.100s: Location %.100q leads to %v, error %v", path, h.Get("Location"), at, err)
				}
			}
			if _, body := s.call(200, "GET", want); len(body) > 7*len(playlist) {
				t.Errorf("%s: %d bytes of %d", want, len(body), len(playlist))
			}
		}
		// Media has nothing written into it.
		s.call(200, "GET", "/v"+first+other+"/x/1.ts")
	}
}

// Whatever the origin answers with, the client reads the same with the token in
// it, or what the origin sent.
func FuzzManifest(f *testing.F) {
	f.Add("#EXTM3U\n/v/x/1.ts\n../2.ts\n", uint8(1), "gzip, br")
	f.Add("<MPD><Period/></MPD>", uint8(2), "zstd;q=0.1,*")
	f.Add("#EXTM3U\n1.ts\n", uint8(3), "")
	token := guard.NewID("u", "")
	path := "/v/x/~" + token.String() + "/m.m3u8"
	kinds, err := playback.NewKinds(nil)
	if err != nil {
		f.Fatal(err)
	}
	store := memstore.New()
	f.Cleanup(func() { store.Close() })
	keeper := lease.New(store, store, nil)
	f.Cleanup(func() { keeper.Close() })
	h := &Handler{
		read: reader{kinds: kinds}, logger: zap.NewNop(), reports: new(sometimes), unwritten: &unwritten{seed: maphash.MakeSeed()},
		gate: gate.New(keeper, store, audience.New(), gate.NewMemory()),
	}
	f.Fuzz(func(t *testing.T, text string, coding uint8, accept string) {
		name := []string{"", "gzip", "zstd", "broken"}[coding%4]
		sent := pack([]byte(text), name)
		if name == "broken" {
			name = "gzip"
		}
		for range 2 {
			r := httptest.NewRequest("GET", path, nil)
			r.Header["Accept-Encoding"] = []string{accept}
			r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), nil, nil)
			w, v := httptest.NewRecorder(), new(visit)
			v.request = gate.Request{
				HTTP: r, Kind: playback.Manifest, Token: &token, User: "u", Stream: "v/x",
				Policy: guard.Policy{Limit: 1, Interval: guard.DefaultInterval, TTL: guard.DefaultTTL},
			}
			v.passage = h.gate.Begin(r.Context(), &v.request)
			if err := h.serveManifest(w, r, caddyhttp.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
				if name != "" {
					w.Header().Set("Content-Encoding", name)
				}
				_, err := w.Write(sent)
				return err
			}), v, &token); err != nil {
				t.Fatal(err)
			}
			if bytes.Equal(w.Body.Bytes(), sent) && w.Header().Get("Content-Encoding") == name {
				continue
			}
			if got, want := unpacked(t, w.Header(), w.Body.String()), kinds.AddToken([]byte(text), playback.Place{Path: path, Hosts: []string{r.Host}}, token); got != string(want) {
				t.Errorf("%q in %q became %q, want %q", text, name, got, want)
			}
		}
	})
}
