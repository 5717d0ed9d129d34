package caddymodule

import (
	"bufio"
	"context"
	"net/http"
	"net/http/httptest"
	"path"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/streamguard/streamguard/playback"
)

// FuzzRequest has anything asked of a gate where nobody may play: nothing that
// an origin could take for media passes, and nothing fails.
func FuzzRequest(f *testing.F) {
	for _, request := range []string{
		"GET /v/x/~0b0b0b0b-0b0b-8b0b-8b0b-0b0b0b0b0b0b/1.ts?guard=0b0b0b0b-0b0b-8b0b-8b0b-0b0b0b0b0b0b&CMCD=sid%3D%22a%22,cid%3D%22b%22 HTTP/1.1\r\nX-User-Id: u\r\n\r\n",
		"HEAD //v/../x/1.m3u8;a=b/. HTTP/1.1\r\nX-User-Id: u\r\nCMCD-Session: sid=\"a\"\r\nX-Playback-Session-Id: s\r\nRange: bytes=0-\r\n\r\n",
		"POST /guards HTTP/1.1\r\nX-User-Id: u\r\nContent-Type: application/json\r\nContent-Length: 23\r\n\r\n{\"playbackId\":\"a\"}     ",
		"POST /guards/cmcd HTTP/1.1\r\nX-User-Id: u\r\nContent-Type: application/cmcd\r\nContent-Length: 22\r\n\r\ne=ps,sid=\"a\",sta=p,ts=1",
		"DELETE /guards/0b0b0b0b-0b0b-8b0b-8b0b-0b0b0b0b0b0b HTTP/1.1\r\nX-User-Id: u\r\nEarly-Data: 1\r\nOrigin: http://h\r\n\r\n",
		"OPTIONS /guards/%2e HTTP/1.1\r\nOrigin: http://h\r\nAccess-Control-Request-Method: PUT\r\n\r\n",
	} {
		f.Add(request)
	}
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	f.Cleanup(cancel)
	var gates []*Handler
	for _, h := range []*Handler{{Playback: "auto", Stream: "name"}, {Playback: "{http.request.uri.query.p}", Stream: "cmcd", Device: "{http.request.header.X-Device}", Anonymous: "allow"}} {
		h.User, h.Limits, h.CORS = "{http.request.header.X-User-Id}", []Limit{{Limit: "0"}}, []string{"http://h"}
		if err := h.Provision(ctx); err != nil {
			f.Fatal(err)
		}
		f.Cleanup(func() { h.Cleanup() })
		h.logger = zap.NewNop() // nothing is said of each request
		gates = append(gates, h)
	}
	kinds, err := playback.NewKinds(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, request string) {
		for _, h := range gates {
			r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(request)))
			if err != nil {
				return
			}
			w := httptest.NewRecorder()
			r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, &caddyhttp.Server{})
			next := caddyhttp.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
				film := kinds.Of(path.Clean(r.URL.Path)) != playback.Other
				if film && r.Method != http.MethodOptions && (h.Anonymous == "deny" || r.Header.Get("X-User-Id") != "") {
					t.Errorf("%q passed", r.URL.Path)
				}
				return nil
			})
			if err := h.ServeHTTP(w, r, next); err != nil {
				t.Errorf("%v", err)
			}
			if w.Code >= 500 {
				t.Errorf("answered %d: %s", w.Code, w.Body)
			}
		}
	})
}
