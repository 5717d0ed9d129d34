package caddymodule

import (
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// speaking returns clients of a server of HTTP/1.1 and 2, by version.
func speaking(t *testing.T) map[string]*http.Transport {
	var h1, h2 http.Protocols
	h1.SetHTTP1(true)
	h2.SetUnencryptedHTTP2(true)
	clients := map[string]*http.Transport{"HTTP/1.1": {Protocols: &h1, DisableCompression: true}, "HTTP/2.0": {Protocols: &h2, DisableCompression: true}}
	t.Cleanup(func() {
		for _, c := range clients {
			c.CloseIdleConnections()
		}
	})
	return clients
}

// over is call over a connection of its own kind.
func (s *server) over(client *http.Transport, want int, method, path string, fields ...string) (http.Header, string) {
	s.t.Helper()
	r := ask(method, "http://"+s.addr+path, fields...)
	r.RequestURI = ""
	resp, err := client.RoundTrip(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != want {
		s.t.Fatalf("%s %s %s %q: %d, %v, want %d\n%s", resp.Proto, method, path, fields, resp.StatusCode, err, want, body)
	}
	return resp.Header, string(body)
}

// public is what operators write for all of a site, and what undoes it all.
const public = `
	Cache-Control "public, max-age=3600"
	Cloudflare-CDN-Cache-Control "max-age=3600"
	Surrogate-Control "max-age=3600"
	Strict-Transport-Security max-age=1
	Access-Control-Allow-Origin *
	Access-Control-Expose-Headers X-Own
	Location /elsewhere
	Retry-After 9999
	RateLimit-Policy none
	RateLimit none
	Vary Accept-Encoding
`

func TestTheGateHasTheLastWord(t *testing.T) {
	const page = "https://player.example.com"
	const gate = "stream_guard {\n" + user + "limit 1\nplayback auto\ncors " + page + "\n}\n"
	lines := func(prefix string) string {
		return strings.ReplaceAll(strings.TrimSuffix(public, "\n"), "\n\t", "\nheader "+prefix) + "\n"
	}
	deferred := "header {" + public + "-Server\n}\n"
	for name, site := range map[string]string{
		"site":             "SITE {\n" + deferred + gate + "respond ok\n}",
		"snippet":          "(own) {\n" + deferred + "}\nSITE {\nimport own\n" + gate + "respond ok\nhandle_errors {\nimport own\nrespond {err.message}\n}\n}",
		"handle":           "SITE {\nhandle {\n" + deferred + gate + "respond ok\n}\n}",
		"around a handle":  "SITE {\n" + deferred + "handle {\n" + gate + "respond ok\n}\n}",
		"field by field":   "SITE {\nheader -Server\n" + lines(">") + gate + "respond ok\n}",
		"at once":          "SITE {\nheader -Server\n" + lines("") + gate + "respond ok\n}",
		"on a match":       "SITE {\nheader {" + public + "-Server\nmatch status 2xx 3xx 4xx\n}\n" + gate + "respond ok\n}",
		"behind encode":    "SITE {\nroute {\nencode\n" + deferred + "encode\n" + gate + "respond ok\n}\n}",
		"error routes":     "SITE {\n" + deferred + gate + "respond ok\nhandle_errors {\n" + deferred + "respond {err.message}\n}\n}",
		"errors, at once":  "SITE {\nheader -Server\n" + gate + "header /v/* /index.html Cache-Control x\n" + deferred + "respond ok\nhandle_errors {\nheader -Server\n" + lines("") + "respond {err.message}\n}\n}",
		"with access logs": "SITE {\nlog\n" + deferred + gate + "respond ok\nhandle_errors {\n" + deferred + "respond {err.message}\n}\n}",
		"replacing":        "SITE {\n" + deferred + "header {\n>Cache-Control no-store \"public, max-age=3600\"\n>Cache-Control private public\n>Location ^~ /\n}\n" + gate + "respond ok\n}",
		"no write_idle":    "WRITE_IDLE SITE {\n" + deferred + gate + "respond ok\n}",
	} {
		t.Run(name, func(t *testing.T) {
			site, idle := strings.CutPrefix(site, "WRITE_IDLE ")
			timeouts := ""
			if idle {
				timeouts = "timeouts {\nwrite_idle -1s\n}\n"
			}
			s := serve(t, "{\nservers {\nprotocols h1 h2c\n"+timeouts+"}\n}\n"+site)
			for version, client := range speaking(t) {
				check := func(what string, h http.Header, want map[string]string) {
					t.Helper()
					maps.Copy(want, map[string]string{"Server": "", "Strict-Transport-Security": "max-age=1"})
					for field, value := range want {
						if got := strings.Join(h[http.CanonicalHeaderKey(field)], " | "); got != value {
							t.Errorf("%s: %s: %s: %q, want %q", version, what, field, got, value)
						}
					}
				}
				own := func(more ...string) map[string]string {
					want := map[string]string{
						"Cache-Control": "no-store", "Cloudflare-CDN-Cache-Control": "", "Surrogate-Control": "",
						"Access-Control-Allow-Origin": page, "Access-Control-Allow-Credentials": "true",
					}
					for i := 0; i < len(more); i += 2 {
						want[more[i]] = more[i+1]
					}
					return want
				}
				origin := []string{"Origin", page, "X-User-Id", version}
				h, _ := s.over(client, 302, "GET", "/v/x/master.m3u8", origin...)
				location := h.Get("Location")
				if !strings.HasPrefix(location, "~") {
					t.Errorf("%s: Location %q of a redirect", version, location)
				}
				check("redirect", h, own())
				token, _, _ := strings.Cut(location, "/")
				h, _ = s.over(client, 200, "GET", "/v/x/"+token+"/1.ts", origin...)
				check("film", h, map[string]string{"Cache-Control": "private, max-age=3600", "Cloudflare-CDN-Cache-Control": "", "Access-Control-Allow-Origin": "*", "Location": "/elsewhere"})
				h, _ = s.over(client, 429, "GET", "/v/y/1.ts", origin...)
				check("refusal", h, own("Retry-After", h.Get("Retry-After"), "RateLimit-Policy", `"guards";q=1;qu="concurrent-requests"`))
				if h.Get("Retry-After") == "9999" || !strings.HasPrefix(h.Get("RateLimit"), `"guards";r=0;t=`) {
					t.Errorf("%s: refusal: %v", version, h)
				}
				if vary, exposed := strings.Join(h["Vary"], ","), strings.Join(h["Access-Control-Expose-Headers"], ","); !strings.Contains(vary, "Accept-Encoding") || !strings.Contains(vary, "Origin") ||
					!strings.Contains(exposed, "X-Own") || !strings.Contains(exposed, "Retry-After") {
					t.Errorf("%s: Vary %q, Access-Control-Expose-Headers %q", version, vary, exposed)
				}
				h, _ = s.over(client, 200, "GET", "/guards", origin...)
				check("list", h, own())
				h, _ = s.over(client, 204, "OPTIONS", "/guards", append(origin, "Access-Control-Request-Method", "POST")...)
				check("preflight", h, map[string]string{"Access-Control-Allow-Origin": page, "Access-Control-Allow-Methods": "GET, HEAD, POST, OPTIONS"})
				h, _ = s.over(client, 200, "GET", "/guards", "Origin", "https://evil.example.com", "X-User-Id", version)
				check("list for others", h, own("Access-Control-Allow-Origin", "", "Access-Control-Allow-Credentials", ""))
				h, _ = s.over(client, 307, "GET", "/v/x/"+token+"/1.jpg", origin...)
				check("without the token", h, map[string]string{"Location": "../1.jpg", "Access-Control-Allow-Origin": page})
				// What the gate does not guard is as the operator says.
				for _, path := range []string{"/index.html", "/v/x/1.jpg"} {
					h, _ = s.over(client, 200, "GET", path, origin...)
					check(path, h, map[string]string{"Cache-Control": "public, max-age=3600", "Cloudflare-CDN-Cache-Control": "max-age=3600", "Access-Control-Allow-Origin": "*"})
				}
			}
		})
	}
}

// filesOut counts the files that it is given to copy, and flushes.
type filesOut struct {
	nowhere
	files, flushes int
}

func (c *filesOut) ReadFrom(r io.Reader) (int64, error) {
	c.files++
	return io.Copy(io.Discard, r)
}

func (c *filesOut) FlushError() error {
	c.flushes++
	return nil
}

// The kernel can copy media from a file all the same, and who flushes first
// flushes the gate's word.
func TestTheLastWordIsNotInTheWay(t *testing.T) {
	for name, write := range map[string]func(w http.ResponseWriter) error{
		"copied": func(w http.ResponseWriter) error {
			_, err := io.Copy(w, io.LimitReader(strings.NewReader("media"), 5))
			return err
		},
		"flushed": func(w http.ResponseWriter) error { return http.NewResponseController(w).Flush() },
		"written": func(w http.ResponseWriter) error { _, err := w.Write([]byte("media")); return err },
	} {
		c := &filesOut{nowhere: nowhere{}}
		server := &caddyhttp.IdleTimeoutWriter{
			ResponseWriterWrapper: &caddyhttp.ResponseWriterWrapper{ResponseWriter: c},
			Ctrl:                  http.NewResponseController(c),
			Logger:                zap.NewNop(),
		}
		r := ask("GET", "/v/x/1.ts")
		r = r.WithContext(caddyhttp.ContextWithIdleTimeouts(r.Context(), nil, server))
		l := lastWord{private: true}
		if err := write(l.over(server, (&Handler{idleWriter: true}).lowest(server, r))); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := c.Header().Get("Cache-Control"); got != "private" {
			t.Errorf("%s: Cache-Control %q", name, got)
		}
		if name == "copied" && c.files != 1 || name == "flushed" && c.flushes != 1 {
			t.Errorf("%s: %+v", name, c)
		}
	}
}

// opaque is a handler whose writer nothing can be placed below.
type opaque struct{}

func (opaque) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	return next.ServeHTTP(publisher{w}, r)
}

type publisher struct{ http.ResponseWriter }

func (p publisher) WriteHeader(status int) {
	p.Header().Set("Cache-Control", "public")
	p.ResponseWriter.WriteHeader(status)
}

// Where the gate cannot have the last word, it says so when it starts.
func TestWarnsWhereHeaderHasTheLastWord(t *testing.T) {
	if !undeferred() || outlasts(opaque{}) {
		t.Errorf("this Caddy's header: %v, another's: %v", undeferred(), outlasts(opaque{}))
	}
	for _, c := range []struct {
		want       string
		undeferred bool
		srv        *caddyhttp.Server
	}{
		{"", true, &caddyhttp.Server{Errors: new(caddyhttp.HTTPErrorConfig)}},
		{"", true, &caddyhttp.Server{WriteIdleTimeout: -1}},
		{"handle_errors", true, &caddyhttp.Server{WriteIdleTimeout: -1, Errors: new(caddyhttp.HTTPErrorConfig)}},
		{"a deferred header", false, new(caddyhttp.Server)},
	} {
		core, logs := observer.New(zap.WarnLevel)
		warnOfHeader(zap.New(core), c.srv, c.undeferred)
		var got []string
		for _, entry := range logs.All() {
			got = append(got, entry.Message)
		}
		if c.want == "" && got != nil || c.want != "" && (len(got) != 1 || !strings.Contains(got[0], c.want) || !strings.Contains(got[0], "header ?Cache-Control")) {
			t.Errorf("%+v: %q", c, got)
		}
	}
}

// Caches of the operator's own choosing have fields of their own.
func TestCachesWithFieldsOfTheirOwn(t *testing.T) {
	for name, stays := range map[string]bool{
		"CDN-Cache-Control": false, "Cloudflare-CDN-Cache-Control": false, "Vercel-CDN-Cache-Control": false, "Netlify-CDN-Cache-Control": false,
		"Akamai-Cache-Control": false, "X-LiteSpeed-Cache-Control": false, "Souin-Cache-Control": false, "x-next-cdn-cache-control": false,
		"Surrogate-Control": false, "Edge-Control": false, "X-Accel-Expires": false,
		"Surrogate-Key": true, "Cache-Tag": true, "Expires": true, "X-Accel-Buffering": true, "ETag": true,
	} {
		for limit, path := range map[Number]string{"1": "/v/x/1.ts", "0": "/v/x/1.ts", "2": "/v/x/master.m3u8"} {
			withGate(t, Handler{Limits: []Limit{{Limit: limit}}, Playback: "auto"}, func(g *site) {
				g.header.Set(name, "max-age=3600")
				w := httptest.NewRecorder()
				w.Header().Set(name, "max-age=3600") // of a `header` in front
				r := caddyhttp.PrepareRequest(ask("GET", path), caddy.NewReplacer(), w, new(caddyhttp.Server))
				if err := g.ServeHTTP(w, r, caddyhttp.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
					w.Header().Set(name, "max-age=3600")
					_, err := w.Write([]byte("media"))
					return err
				})); err != nil {
					t.Fatal(err)
				}
				if got := w.Header().Get(name) != ""; got != stays {
					t.Errorf("%s stays in a %d: %v, want %v", name, w.Code, got, stays)
				}
			})
		}
	}
}
