package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/streamguard/streamguard/redisstore/redistest"
)

// h2c has a node speak HTTP/2 without TLS, too.
const h2c = "{\n\tservers {\n\t\tprotocols h1 h2c\n\t}\n}\n"

// frames is an HTTP/2 connection of a client that says what it likes.
type frames struct {
	net.Conn
	*http2.Framer
	block   bytes.Buffer // of the header that is being encoded
	encoder *hpack.Encoder
	stream  uint32 // the last one opened
}

func (n *node) dialHTTP2() (*frames, error) {
	conn, err := net.Dial("tcp", n.addr)
	if err != nil {
		return nil, err
	}
	conn.SetDeadline(time.Now().Add(patience))
	f := &frames{Conn: conn, Framer: http2.NewFramer(conn, conn)}
	f.encoder = hpack.NewEncoder(&f.block)
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	io.WriteString(conn, http2.ClientPreface) // an error comes again with the first frame
	return f, f.WriteSettings()
}

// header encodes fields, names and values by turns, behind those of a GET.
func (f *frames) header(path string, fields ...string) []byte {
	f.block.Reset()
	all := append([]string{":method", "GET", ":scheme", "http", ":authority", "video", ":path", path}, fields...)
	for i := 0; i < len(all); i += 2 {
		f.encoder.WriteField(hpack.HeaderField{Name: all[i], Value: all[i+1]})
	}
	return f.block.Bytes()
}

// open begins a stream with a request that has no body.
func (f *frames) open(header []byte, complete bool) error {
	f.stream = f.stream + 1 | 1
	return f.WriteHeaders(http2.HeadersFrameParam{StreamID: f.stream, BlockFragment: header, EndStream: true, EndHeaders: complete})
}

// answer is the status and the body of the last stream opened, "" and what came
// until then if it is reset or the connection ends.
func (f *frames) answer() (status, body string, err error) {
	for {
		frame, err := f.ReadFrame()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return "", body, err
		} else if err != nil {
			return "", body, nil
		}
		if frame.Header().StreamID != f.stream {
			continue
		}
		switch frame := frame.(type) {
		case *http2.MetaHeadersFrame:
			status = frame.PseudoValue("status")
		case *http2.DataFrame:
			body += string(frame.Data())
		case *http2.RSTStreamFrame:
			return "", body, nil
		}
		if frame.Header().Flags.Has(http2.FlagDataEndStream) { // the same bit in both
			return status, body, nil
		}
	}
}

// Clients that reset each stream as soon as it is open (CVE-2023-44487), each
// of another playback, while Redis says nothing: they get no more guards than
// anybody, a viewer plays on, and nothing of them is left.
func TestRapidReset(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	line := redistest.NewLine(t, redis.Addr)
	n := start(t, h2c+monitored(away(line.Addr), "on_store_error deny", "limit 2", "interval 10m"))
	n.want(t, 200, "alice", "GET", target, "", "CMCD-Session", `sid="a"`)
	n.client.CloseIdleConnections()
	goroutines, heap := n.goroutines(t), n.heap(t)

	flood := func(user string, streams int) {
		var clients sync.WaitGroup
		for c := range 4 {
			clients.Go(func() {
				for opened := 0; opened < streams; {
					f, err := n.dialHTTP2()
					if err != nil {
						t.Error(err)
						return
					}
					go io.Copy(io.Discard, f) // until the server has had enough of it
					for err == nil && opened < streams {
						opened++
						sid := fmt.Sprintf(`sid="%d.%d"`, c, opened)
						if err = f.open(f.header(target, "x-user-id", user, "cmcd-session", sid), true); err == nil {
							err = f.WriteRSTStream(f.stream, http2.ErrCodeCancel)
						}
					}
					f.Close()
				}
			})
		}
		for range 50 {
			n.want(t, 200, "alice", "GET", target, "", "CMCD-Session", `sid="a"`)
		}
		clients.Wait()
	}
	flood("mallory", 2000)
	line.Set(redistest.Trouble{NoAnswers: true})
	flood("trudy", 2000)
	// Two for each call left behind, at most 1024 here, and three for each stream.
	eventually(t, "no more goroutines while Redis says nothing than there may be", func() bool { return n.goroutines(t) <= goroutines+2*1024+3*4*250 })
	line.Set(redistest.Trouble{})
	if gone := n.scrape(t)[`caddy_stream_guard_verdicts_total{verdict="gone"}`]; gone < 100 {
		t.Errorf("%v requests reached the gate before they were reset", gone)
	}

	n.client.CloseIdleConnections()
	eventually(t, "nothing is left of them", func() bool { return n.goroutines(t) <= goroutines+10 })
	// The server's last connections keep up to 1,250 requests each, however many there were.
	eventually(t, "their memory is free", func() bool { return n.heap(t) <= heap+64<<20 })
	for _, user := range []string{"mallory", "trudy"} {
		var a *answer
		eventually(t, "Redis is held to be well", func() bool { a = n.ask(t, user, "GET", "/guards", ""); return a.status == 200 })
		if l := decode[list](t, a); len(l.Guards) > 2 {
			t.Errorf("%s holds %d guards, limit 2", user, len(l.Guards))
		}
	}
}

// A header that never ends (CVE-2023-45288) is not waited for, nor kept.
func TestHostileHTTP2WithoutEnd(t *testing.T) {
	t.Parallel()
	n := start(t, h2c+site(files, "store memory"))
	f, err := n.dialHTTP2()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	go io.Copy(io.Discard, f)
	err = f.open(f.header(target, "x-user-id", "mallory"), false)
	for sent := 0; err == nil; sent += f.block.Len() {
		if sent > 64<<20 {
			t.Fatalf("the server still listens after %d MB of one header", sent>>20)
		}
		f.block.Reset()
		for range 100 {
			f.encoder.WriteField(hpack.HeaderField{Name: "x-more", Value: strings.Repeat("a", 100), Sensitive: true}) // in full each time
		}
		err = f.WriteContinuation(f.stream, false, f.block.Bytes())
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection is open after %v", patience)
	}
	n.want(t, 200, "alice", "GET", target, "")
}

// What HTTP/2 can carry and HTTP/1 can't, as TestHostileRequests has it: no film
// past the limit, nothing in alice's name.
func TestHostileHTTP2(t *testing.T) {
	t.Parallel()
	o := newLenient(t)
	n := start(t, h2c+behindLogin(t, "reverse_proxy "+o.Listener.Addr().String(), "limit 1", "store memory", "interval 10m"))
	n.want(t, 201, "", "POST", "/guards", `{"streamId":"held"}`, "Cookie", "session=mallory")
	for name, fields := range map[string][]string{
		"as it should be":        {target},
		"X-User-Id":              {target, "x-user-id", "alice"},
		"X-User-Id capital":      {target, "X-User-Id", "alice"},
		"X-User-Id in a value":   {target, "x-other", "a\r\nX-User-Id: alice"},
		"X-User-Id behind LF":    {target, "x-other", "a\nx-user-id: alice"},
		"X-User-Id in a name":    {target, "x-other: a\r\nx-user-id", "alice"},
		"X-User-Id by hop":       {target, "connection", "x-user-id", "x-user-id", "alice"},
		"a request in the path":  {target + " HTTP/1.1\r\nX-User-Id: alice\r\n\r\n"},
		"a request in a value":   {target, "x-other", "a\r\n\r\nGET " + target + " HTTP/1.1\r\nX-User-Id: alice\r\n\r\n"},
		"a path without a slash": {"media/cmaf/s0/001.m4s"},
		"a path of a host":       {"http://video" + target},
		"no path":                {""},
		"a second path":          {"/index.html", ":path", target},
		"a path behind":          {"/index.html", "x-other", "a", ":path", target},
		"another method":         {target, ":method", "OPTIONS"},
		"a pseudo-header":        {target, ":user", "alice"},
		"CONNECT with protocol":  {target, ":protocol", "websocket"},
		"chunked":                {target, "transfer-encoding", "chunked"},
		"a length without bytes": {target, "content-length", "10"},
		"another host":           {target, "host", "elsewhere"},
		"cookies in crumbs":      {target, "cookie", "a=b", "cookie", "session=alice"}, // the first session counts
		"upgrade":                {target, "upgrade", "h2c", "http2-settings", "AAMAAABkAARAAAAAAAIAAAAA"},
	} {
		f, err := n.dialHTTP2()
		if err != nil {
			t.Fatal(err)
		}
		err = f.open(f.header(fields[0], append([]string{"cookie", "session=mallory"}, fields[1:]...)...), true)
		if err != nil {
			t.Fatal(err)
		}
		status, body, err := f.answer()
		f.Close()
		switch {
		case err != nil:
			t.Errorf("%s: %v", name, err)
		case strings.Contains(body, secret):
			t.Errorf("%s: answered %s and got the film", name, status)
		case strings.HasPrefix(status, "5"):
			t.Errorf("%s: answered %s", name, status)
		case name == "as it should be" && status != fmt.Sprint(http.StatusTooManyRequests):
			t.Errorf("answered %s: %s", status, body)
		}
	}
	if o.media.Load() != 0 || o.alice.Load() != 0 {
		t.Errorf("the origin gave media %d times and heard %d requests in alice's name", o.media.Load(), o.alice.Load())
	}
	if l := decode[list](t, n.want(t, 200, "", "GET", "/guards", "", "Cookie", "session=alice")); len(l.Guards) != 0 {
		t.Errorf("alice holds %+v, who was never here", l.Guards)
	}
}
