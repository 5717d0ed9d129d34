package caddymodule

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/streamguard/streamguard/guard"
)

func TestManifestsCarryTheTokenWhereAURLWouldLoseIt(t *testing.T) {
	const playlist = "#EXTM3U\n/v/x/1.ts\n2.ts\n../y/3.ts\n"
	large := strings.Repeat("/v/x/1.ts\n", maxManifest/10+1)
	for _, c := range []struct {
		name   string
		origin func(http.ResponseWriter, *http.Request)
		want   string
	}{
		{"whole", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", strconv.Itoa(len(playlist)))
			w.Header().Set("Content-Digest", "sha-256=:x:")
			w.Write([]byte(playlist))
		}, "#EXTM3U\n/v/x/TOKEN/1.ts\n2.ts\n../../y/TOKEN/3.ts\n"},
		{"in pieces", func(w http.ResponseWriter, r *http.Request) {
			for i := range len(playlist) {
				w.Write([]byte{playlist[i]})
				http.NewResponseController(w).Flush()
			}
		}, "#EXTM3U\n/v/x/TOKEN/1.ts\n2.ts\n../../y/TOKEN/3.ts\n"},
		{"stored as gzip", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			z.Write([]byte(playlist))
			z.Close()
		}, "#EXTM3U\n/v/x/TOKEN/1.ts\n2.ts\n../../y/TOKEN/3.ts\n"},
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
