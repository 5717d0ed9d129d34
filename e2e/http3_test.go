package e2e

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/streamguard/streamguard/redisstore/redistest"
)

// secured is a node whose site is served by TLS, too, where it speaks HTTP/2 and 3.
type secured struct {
	*node
	base string // of URLs there
}

// startSecured starts a node with what site returns, behind global options for servers.
func startSecured(t *testing.T, servers, site string) *secured {
	t.Helper()
	base := "https://localhost:" + redistest.FreePort(t)
	n := start(t, "{\n\tskip_install_trust\n\tauto_https disable_redirects\n"+servers+"}\n"+
		site+strings.Replace(site, ":8090 {", base+" {\n\ttls internal", 1))
	s := &secured{n, base}
	p := s.app(t, "", "HTTP/3")
	eventually(t, "there is a certificate", func() bool {
		resp, err := p.open("/")
		if err == nil {
			resp.Body.Close()
		}
		return err == nil
	})
	p.close()
	return s
}

// versions are those of HTTP, and the first is without TLS: then the kernel copies files.
var versions = []string{"plain HTTP/1.1", "HTTP/1.1", "HTTP/2", "HTTP/3"}

// app is a player that speaks one version of HTTP.
type app struct {
	node  *secured
	base  string // of URLs
	user  string
	agent string // its User-Agent
	at    string // URL of its manifest, which has its token
	speak http.RoundTripper
	close func() // its connections
	dials atomic.Int32
	gone  chan struct{} // closed when its connections carry nothing more
}

func (s *secured) app(t *testing.T, user, version string) *app {
	p := &app{node: s, base: s.base, user: user, agent: "player", gone: make(chan struct{})}
	trust := &tls.Config{ServerName: "localhost", InsecureSkipVerify: true}
	switch version {
	case "plain HTTP/1.1", "HTTP/1.1":
		tr := &http.Transport{TLSClientConfig: trust} // so it speaks no HTTP/2
		p.speak, p.close = tr, tr.CloseIdleConnections
		if version != "HTTP/1.1" {
			p.base = "http://" + s.addr
		}
	case "HTTP/2":
		trust.NextProtos = []string{"h2"}
		tr := &http.Transport{Protocols: new(http.Protocols), DialTLSContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := net.Dial(network, addr)
			if err != nil {
				return nil, err
			}
			secure := tls.Client(&carrying{c, p.gone}, trust)
			return secure, secure.HandshakeContext(ctx)
		}}
		tr.Protocols.SetHTTP2(true)
		p.speak, p.close = tr, tr.CloseIdleConnections
	case "HTTP/3":
		tr := &http3.Transport{TLSClientConfig: trust, Dial: func(ctx context.Context, addr string, config *tls.Config, q *quic.Config) (*quic.Conn, error) {
			p.dials.Add(1)
			return quic.DialAddrEarly(ctx, addr, config, q)
		}}
		p.speak, p.close = tr, func() { tr.Close() }
	}
	t.Cleanup(func() { p.close() })
	return p
}

// carrying is a connection that carries nothing to its client from when that is gone.
type carrying struct {
	net.Conn
	gone chan struct{}
}

func (c *carrying) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	select {
	case <-c.gone:
		select {}
	default:
		return n, err
	}
}

// open asks for a path, or what a manifest names, and follows redirects.
func (p *app) open(uri string) (*http.Response, error) {
	r, err := http.NewRequest("GET", p.base, nil)
	if err == nil && p.at != "" {
		r.URL, err = r.URL.Parse(p.at)
	}
	if err == nil {
		r.URL, err = r.URL.Parse(uri)
	}
	if err != nil {
		return nil, err
	}
	r.Header.Set("X-User-Id", p.user)
	r.Header.Set("User-Agent", p.agent)
	return (&http.Client{Transport: p.speak}).Do(r)
}

// get insists on a whole answer with a status.
func (p *app) get(t *testing.T, status int, uri string) (body string) {
	t.Helper()
	resp, err := p.open(uri)
	if err != nil {
		t.Fatalf("%s of %s: %v", uri, p.user, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != status {
		t.Fatalf("%s of %s was answered %d, want %d: %v\n%.300s", uri, p.user, resp.StatusCode, status, err, b)
	}
	if strings.HasSuffix(resp.Request.URL.Path, ".m3u8") {
		p.at = resp.Request.URL.String()
	}
	return string(b)
}

// plays asks for a title's list and its first segments.
func (p *app) plays(t *testing.T) *app {
	t.Helper()
	p.get(t, 200, "/media/ts/180/index.m3u8")
	p.get(t, 200, "000.ts")
	p.get(t, 200, "001.ts")
	return p
}

// goesOnBy returns the same player by another version.
func (p *app) goesOnBy(t *testing.T, version string) *app {
	next := p.node.app(t, p.user, version)
	next.at = p.at
	return next
}

// only is the one guard of a user.
func (n *node) only(t *testing.T, user string) guard {
	t.Helper()
	n.holds(t, user, 1)
	return n.guards(t, user).Guards[0]
}

// same insists that a user's only guard is the one that it was, and is not closed.
func (n *node) same(t *testing.T, user string, was guard) {
	t.Helper()
	if is := n.only(t, user); is.GuardID != was.GuardID || !is.CreatedAt.Equal(was.CreatedAt) || is.State == "closed" {
		t.Errorf("%s holds %+v, want as before %+v", user, is, was)
	}
}

// isClosed waits until the only guard of a user is.
func (n *node) isClosed(t *testing.T, user string) {
	t.Helper()
	eventually(t, "the guard of "+user+" is closed", func() bool { return n.only(t, user).State == "closed" })
}

// atLimit insists that another start of the user's is refused, by a player of another
// program and by the API.
func (n *node) atLimit(t *testing.T, user string) {
	t.Helper()
	refused(t, n.ask(t, user, "POST", "/guards", `{"streamId":"next"}`, "User-Agent", "another"), 1)
	refused(t, n.ask(t, user, "GET", target, "", "User-Agent", "another"), 1)
}

// A player that has gone on by HTTP/3 keeps its slot in a pause, though all connections
// that are seen of it are closed. That of one by HTTP/2 alone can be taken by then.
func TestPlaybackThatGoesOnByHTTP3(t *testing.T) {
	t.Parallel()
	n := startSecured(t, "", site(files, inRedis(redistest.Start(t)), "playback auto", "limit 1", "interval 3s", "ttl 90s"))
	last := make(map[string]*app)
	before := make(map[string]guard)
	for _, user := range []string{"closes then", "closes first"} {
		first := n.app(t, user, "HTTP/2").plays(t)
		before[user] = n.only(t, user)
		next := first.goesOnBy(t, "HTTP/3")
		if user == "closes first" {
			first.close()
		}
		next.get(t, 200, "002.ts")
		next.get(t, 200, "003.ts")
		first.close()
		last[user] = next
	}
	seen := n.app(t, "seen", "HTTP/2").plays(t)
	seen.get(t, 200, "002.ts")
	seen.close()
	n.isClosed(t, "seen")
	for user, p := range last {
		n.atLimit(t, user)
		p.get(t, 200, "004.ts")
		n.same(t, user, before[user])
		if p.dials.Load() != 1 {
			t.Errorf("%s has dialled %d times", user, p.dials.Load())
		}
	}
}

// A playback by HTTP/3 counts as any.
func TestLimitByHTTP3(t *testing.T) {
	t.Parallel()
	n := startSecured(t, "", site(files, inRedis(redistest.Start(t)), "playback auto", "limit 1", "interval 3s", "ttl 90s"))
	first := n.app(t, "alice", "HTTP/3").plays(t)
	held := n.only(t, "alice")
	if !strings.Contains(first.at, held.GuardID) {
		t.Errorf("it plays %s, and holds %s", first.at, held.GuardID)
	}
	second := n.app(t, "alice", "HTTP/3")
	second.agent = "another"
	for _, uri := range []string{"/media/ts/90/index.m3u8", target} {
		if body := second.get(t, 429, uri); !strings.Contains(body, "REACHED_MAX_GUARDS_COUNT") {
			t.Errorf("%s is refused with %s", uri, body)
		}
	}
	first.get(t, 200, "002.ts")
	n.same(t, "alice", held)
	r, err := http.NewRequest("DELETE", n.base+"/guards/"+held.GuardID, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-User-Id", "alice")
	resp, err := first.speak.RoundTrip(r)
	if err != nil || resp.StatusCode != 204 {
		t.Fatal(resp, err)
	}
	second.plays(t)
	if is := n.only(t, "alice"); is.GuardID == held.GuardID {
		t.Error("the slot is still its")
	}
}

// tunes opens a channel, and reads no more than its beginning.
func (p *app) tunes(t *testing.T, path string) io.ReadCloser {
	t.Helper()
	resp, err := p.open(path)
	if err != nil || resp.StatusCode != 200 || resp.ContentLength != -1 {
		t.Fatal(resp, err)
	}
	if _, err := io.ReadFull(resp.Body, make([]byte, 188)); err != nil {
		t.Fatal(err)
	}
	return resp.Body
}

// becomes waits until a user has another guard: the answer that it was made for is known
// to be endless.
func (n *node) becomes(t *testing.T, user string, first guard) (now guard) {
	t.Helper()
	eventually(t, "the answer of "+user+" is known to be endless", func() bool {
		now = n.only(t, user)
		return now.GuardID != first.GuardID
	})
	return now
}

// A channel by HTTP/3 that is revoked is cut, whether it is read or not; its connection
// goes on, and the next answer on it is whole. One that is left is over.
func TestEndlessChannelsByHTTP3(t *testing.T) {
	t.Parallel()
	c := newChannels(t)
	n := startSecured(t, "", site("reverse_proxy /tv/* "+c.Listener.Addr().String()+"\n\t"+files,
		inRedis(redistest.Start(t)), "playback auto", "limit 1", "interval 3s", "ttl 90s"))
	left := n.app(t, "left", "HTTP/3")
	leaves := left.tunes(t, "/tv/left.ts")
	n.becomes(t, "left", n.only(t, "left"))
	leaves.Close()

	for _, user := range []string{"reads", "reads-not"} {
		p := n.app(t, user, "HTTP/3")
		path := "/tv/" + user + ".ts"
		body, ended := p.tunes(t, path), make(chan error, 1)
		read := func() {
			_, err := io.Copy(io.Discard, body)
			ended <- err
		}
		if user == "reads" {
			go read()
		}
		is := n.becomes(t, user, n.only(t, user))
		if user != "reads" {
			c.stalls(t, path)
		}
		n.operateWell(t, "revoke", user, is.GuardID)
		c.ends(t, path)
		if user != "reads" {
			read()
		}
		var reset *http3.Error
		if err := <-ended; !errors.As(err, &reset) || !reset.Remote {
			t.Errorf("the channel of %s ends with %v, want a stream that is reset", user, err)
		}
		if body := p.get(t, 429, path); !strings.Contains(body, "GUARD_REVOKED") {
			t.Errorf("%s is refused with %s", user, body)
		}
		p.plays(t)
		if p.dials.Load() != 1 {
			t.Errorf("%s has dialled %d times", user, p.dials.Load())
		}
	}
	n.isClosed(t, "left")
	n.want(t, 201, "left", "POST", "/guards", `{"streamId":"next"}`, "User-Agent", "another")
}
