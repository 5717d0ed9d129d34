package caddymodule

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/streamguard/streamguard/caddymodule/storage"

	"github.com/streamguard/streamguard/redisstore/redistest"
)

// held is a socket that lets its reader wait.
type held struct {
	net.PacketConn
	release chan struct{}
}

func (c held) ReadFrom(b []byte) (int, net.Addr, error) {
	<-c.release
	return c.PacketConn.ReadFrom(b)
}

// A request of media in HTTP/3 early data, which anybody on the way could send
// again, makes no guard: it is answered 425, and 200 after the handshake.
func TestEarlyDataMakesNoGuard(t *testing.T) {
	port := redistest.FreePort(t)
	serve(t, "{\nstorage file_system "+t.TempDir()+"\nskip_install_trust\nauto_https disable_redirects\n}\nhttps://localhost:"+port+" {\ntls internal\nstream_guard {\n"+user+"}\nrespond ok\n}")

	sessions := tls.NewLRUClientSessionCache(1)
	// dial returns a client whose connection hears nothing until it is released.
	dial := func() (client *http3.Transport, release func()) {
		socket, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		conn := held{socket, make(chan struct{})}
		release = sync.OnceFunc(func() { close(conn.release) })
		udp := &quic.Transport{Conn: conn}
		client = &http3.Transport{
			TLSClientConfig: &tls.Config{ServerName: "localhost", InsecureSkipVerify: true, ClientSessionCache: sessions},
			Dial: func(ctx context.Context, addr string, config *tls.Config, q *quic.Config) (*quic.Conn, error) {
				to, err := net.ResolveUDPAddr("udp", addr)
				if err != nil {
					return nil, err
				}
				return udp.DialEarly(ctx, to, config, q)
			},
		}
		t.Cleanup(func() {
			release()
			client.Close()
			udp.Close()
			socket.Close()
		})
		return client, release
	}
	get := func(client *http3.Transport, method, path string) int {
		r, err := http.NewRequest(method, "https://localhost:"+port+path, nil)
		if err != nil {
			t.Error(err)
			return 0
		}
		r.Header.Set("X-User-Id", "u")
		resp, err := client.RoundTrip(r)
		if err != nil {
			return 0
		}
		resp.Body.Close()
		return resp.StatusCode
	}

	first, release := dial()
	release()
	eventually(t, "a certificate", func() bool { return get(first, "GET", "/poster.jpg") == 200 })
	eventually(t, "a session ticket", func() bool { _, ok := sessions.Get("localhost"); return ok })

	tooEarly := func() float64 {
		var m dto.Metric
		if err := verdicts.WithLabelValues("too_early").Write(&m); err != nil {
			t.Fatal(err)
		}
		return m.GetCounter().GetValue()
	}
	before := tooEarly()
	second, release := dial()
	answer := make(chan int)
	go func() { answer <- get(second, http3.MethodGet0RTT, "/v/x/1.ts") }()
	// The client has not heard of the server yet: its handshake is not done.
	eventually(t, "the gate's verdict before the handshake", func() bool { return tooEarly() == before+1 })
	release()
	if got := <-answer; got != http.StatusTooEarly {
		t.Errorf("media in early data: %d, want 425", got)
	}
	guards := func() int {
		list, err := storage.InUse()[0].Store.List(t.Context(), "u")
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	if n := guards(); n != 0 {
		t.Errorf("early data made %d guards", n)
	}
	if got := get(second, "GET", "/v/x/1.ts"); got != 200 {
		t.Errorf("after the handshake: %d", got)
	}
	if n := guards(); n != 1 {
		t.Errorf("%d guards after the handshake, want 1", n)
	}
}
