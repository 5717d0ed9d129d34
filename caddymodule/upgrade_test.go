package caddymodule

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// An origin that agrees to any protocol is offered none that would carry
// requests past the gate, whether the path is one that is counted or not.
func TestNoTunnelPastTheGate(t *testing.T) {
	type offer struct{ upgrade, connection, settings string }
	offers := make(chan offer, 1)
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := r.Header
		offers <- offer{strings.Join(h["Upgrade"], " | "), strings.Join(h["Connection"], " | "), h.Get("Http2-Settings")}
		if h.Get("Upgrade") == "" {
			return
		}
		w.Header().Set("Upgrade", h.Get("Upgrade"))
		w.Header().Set("Connection", "Upgrade")
		w.WriteHeader(http.StatusSwitchingProtocols)
		conn, brw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		if line, err := brw.ReadString('\n'); err == nil {
			io.WriteString(conn, "echo "+line)
		}
	}))
	defer origin.Close()
	s := serve(t, "SITE {\nstream_guard {\n"+user+"limit 1\nplayback stream\n}\nreverse_proxy "+origin.URL+"\n}")
	for _, c := range []struct{ fields, upgrade string }{
		{"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk\r\n", ""},
		{"upgrade: H2C\r\nconnection: upgrade\r\n", ""},
		{"Upgrade:\th2c-14 \r\nConnection: keep-alive, Upgrade\r\n", ""},
		{"Upgrade: h2\r\nConnection: Upgrade\r\n", ""},
		{"Upgrade: HTTP/2.0\r\nConnection: Upgrade\r\n", ""},
		{"Upgrade: TLS/1.2, HTTP/1.1\r\nConnection: Upgrade\r\n", ""},
		{"Upgrade: SPDY/3.1\r\nConnection: Upgrade\r\n", ""},
		{"Upgrade: h2c\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n", ""},
		{"Connection: HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk\r\n", ""},
		{"Upgrade: websocket\r\nConnection: Upgrade\r\n", "websocket"},
		{"Upgrade: websocket, h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk\r\n", "websocket"},
		{"Upgrade: h2c, websocket\r\nConnection: Upgrade\r\n", "websocket"},
		{"Upgrade: h2c\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n", "websocket"},
		{"Upgrade: ,,h2c,\r\nUpgrade: ,websocket,\r\nConnection: Upgrade\r\nConnection: close\r\n", "websocket"},
	} {
		for _, request := range []string{"GET /robots.txt", "GET /v/x/1.ts", "GET /v/x/m.m3u8", "OPTIONS /v/x/1.ts", "POST /", "GET /ws"} {
			conn, err := net.Dial("tcp", s.addr)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(conn, "%s HTTP/1.1\r\nHost: %s\r\nX-User-Id: u\r\nContent-Length: 0\r\n%s\r\n", request, s.addr, c.fields)
			conn.SetDeadline(time.Now().Add(10 * time.Second))
			answers := bufio.NewReader(conn)
			answer, err := http.ReadResponse(answers, nil)
			if err != nil {
				t.Fatalf("%s with %q: %v", request, c.fields, err)
			}
			want := offer{upgrade: c.upgrade}
			if want.upgrade != "" {
				want.connection = "Upgrade"
			}
			if len(offers) == 0 {
				t.Fatalf("%s with %q: %d", request, c.fields, answer.StatusCode)
			}
			if got := <-offers; got != want || (answer.StatusCode == http.StatusSwitchingProtocols) != (c.upgrade != "") {
				t.Errorf("%s with %q: %d, the origin was offered %+v, want %+v", request, c.fields, answer.StatusCode, got, want)
			}
			if c.upgrade != "" {
				io.WriteString(conn, "hello\n")
				if line, err := answers.ReadString('\n'); line != "echo hello\n" {
					t.Errorf("%s: a WebSocket says %q, %v", request, line, err)
				}
			}
			conn.Close()
		}
	}
}
