package truth

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// player is one of an account's four. It has an address, a program and connections
// of its own.
type player struct {
	w       *world
	account *account
	n       int // in its world
	kind    *kind

	address byte // the last of its address: it moves when its network changes
	client  *http.Client
	mu      sync.Mutex
	open    map[net.Conn]struct{}
	dials   int

	started int      // playbacks
	base    *url.URL // below which its media are
	sid     string
	guard   string // its id, where the player knows it
}

func newPlayer(w *world, a *account, n int, k *kind) *player {
	p := &player{w: w, account: a, n: n, kind: k, address: 1}
	p.connects()
	return p
}

// connects gives the player connections anew. It no longer knows of others.
func (p *player) connects() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open = make(map[net.Conn]struct{})
	transport := &http.Transport{DialContext: p.dial, DisableKeepAlives: p.kind.conns == each}
	if p.kind.conns == idles {
		transport.IdleConnTimeout = life(4)
	}
	if p.kind.conns == keepsHTTP2 {
		transport.Protocols = new(http.Protocols)
		transport.Protocols.SetUnencryptedHTTP2(true)
	}
	p.client = &http.Client{Transport: transport}
}

// dial connects to the gate that the balancer has for the player: for three of four
// that goes by the address, for the fourth by the connection. A gate that is away gets nobody.
func (p *player) dial(ctx context.Context, _, _ string) (conn net.Conn, err error) {
	p.mu.Lock()
	first := p.n
	if p.n/4%4 == 3 {
		first += p.dials
	}
	p.dials++
	from := net.IPv4(127, byte(1+p.n/250), byte(1+p.n%250), p.address)
	p.mu.Unlock()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: from}}
	for i := range p.w.gates {
		if conn, err = dialer.DialContext(ctx, "tcp", p.w.gates[(first+i)%len(p.w.gates)].of(p.kind)); err == nil {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	if p.kind.naming == endless && p.kind.ending == vanishes {
		conn.(*net.TCPConn).SetReadBuffer(256 << 10) // it is soon full
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open[conn] = struct{}{}
	p.w.opened(conn)
	return conn, nil
}

// close closes all connections, as the end of a process does.
func (p *player) close() {
	p.mu.Lock()
	open := p.open
	p.mu.Unlock()
	p.connects()
	for conn := range open {
		conn.Close()
	}
}

// vanish never uses the connections again, and moves to another network.
func (p *player) vanish() {
	p.connects()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.address = p.address%250 + 1
}

// live plays what is planned.
func (p *player) live(ctx context.Context, sessions []session) {
	for _, s := range sessions {
		if p.w.until(ctx, s.at); ctx.Err() != nil {
			return
		}
		p.watch(ctx, &s)
	}
}

// watch is one session.
func (p *player) watch(ctx context.Context, s *session) {
	p.started++
	p.sid, p.guard = fmt.Sprintf("%s-%d-%d", p.account.user, p.n, p.started), ""
	if s.preload {
		p.ask(ctx, p.folder(s)+"master.m3u8")
		return
	}
	b := &played{kind: p.kind, over: math.Inf(1)}
	p.w.write(func(now float64) {
		b.asked, b.answered = now, now
		p.account.playbacks = append(p.account.playbacks, b)
	})
	playing, code := p.start(ctx, s)
	p.w.write(func(now float64) {
		b.answered, b.admitted, b.code = now, code == "", code
		if b.admitted {
			b.spells = []spell{{now, now}}
		} else {
			b.over = now
		}
	})
	switch {
	case !b.admitted:
	case s.probe:
		if playing != nil {
			playing.Close()
		}
	case p.kind.naming == endless:
		p.receive(ctx, s, b, playing)
	default:
		p.play(ctx, s, b, playing)
	}
	p.end(ctx, b)
}

// end is that of a playback, for its viewer, and then for whoever can see it.
func (p *player) end(ctx context.Context, b *played) {
	says := b.admitted && b.interrupted == "" && (p.kind.ending == reports || p.kind.ending == goodbye && p.guard != "")
	p.w.write(func(now float64) {
		b.over, b.goodbye = min(b.over, now), says
	})
	switch p.kind.ending {
	case closes:
		p.close()
	case goodbye:
		if says {
			p.send(context.WithoutCancel(ctx), "DELETE", "/guards/"+p.guard, "")
		}
	case reports:
		if says {
			p.report(context.WithoutCancel(ctx), "e")
		}
	case vanishes:
		p.vanish()
	}
}

// report sends a CMCD event: what the player does now.
func (p *player) report(ctx context.Context, state string) {
	p.send(ctx, "POST", "/guards/cmcd", fmt.Sprintf("e=ps,sid=%q,sta=%s,ts=%d", p.sid, state, time.Now().UnixMilli()))
}

func (p *player) stream(s *session) string {
	shelf := "film"
	switch p.kind.naming {
	case byNothing:
		shelf = "nameless"
	case endless:
		shelf = "channel"
	case progress:
		shelf = "file"
	}
	return fmt.Sprintf("%s/%s-t%d", shelf, p.account.user, s.title)
}

func (p *player) folder(s *session) string { return "/" + p.stream(s) + "/" }

// start asks for all that is there before the first picture. It returns the answer
// that goes on, if one does, and what the start was refused with.
func (p *player) start(ctx context.Context, s *session) (playing io.ReadCloser, refused string) {
	manifest := p.folder(s) + "master.m3u8"
	switch p.kind.naming {
	case endless, progress:
		path := p.folder(s) + "channel.ts"
		switch {
		case p.kind.naming == progress:
			path = p.folder(s) + "film.mp4"
		case p.kind.ending == vanishes:
			path = p.folder(s) + "channel-fast.ts"
		}
		a := p.send(ctx, "GET", path, "", "Range", p.from(0))
		if refused = a.refused(); refused != "" {
			return nil, refused
		}
		p.base = a.url
		return a.body, ""
	case byQuery, byID:
		body := fmt.Sprintf(`{"streamId": %q}`, p.stream(s))
		if p.kind.naming == byID {
			body = fmt.Sprintf(`{"streamId": %q, "playbackId": %q}`, p.stream(s), p.sid)
		}
		a := p.send(ctx, "POST", "/guards", body)
		if refused = a.refused(); refused != "" {
			return nil, refused
		}
		var g struct{ GuardID string }
		json.Unmarshal(a.all(), &g)
		p.guard = g.GuardID
		if manifest = p.folder(s) + "~" + p.guard + "/master.m3u8"; p.kind.naming == byQuery {
			manifest = p.folder(s) + "master.m3u8?guard=" + p.guard
		}
	}
	a := p.ask(ctx, manifest)
	if refused = a.refused(); refused != "" {
		return nil, refused
	}
	p.base = a.url
	if _, token, ok := strings.Cut(p.base.Path, "/~"); ok {
		p.guard, _, _ = strings.Cut(token, "/")
	}
	if p.kind.naming == byNothing {
		p.base = &url.URL{Path: p.folder(s)}
	}
	if refused = p.ask(ctx, p.relative("v.m3u8")).refused(); refused != "" {
		return nil, refused
	}
	for n := range 3 {
		if s.probe && n > 0 {
			break
		}
		if refused = p.segment(ctx, n); refused != "" {
			return nil, refused
		}
	}
	return nil, ""
}

func (p *player) from(second float64) string {
	if p.kind.naming != progress {
		return ""
	}
	return fmt.Sprintf("bytes=%d-", int(second*bitrate))
}

func (p *player) relative(name string) string {
	u := *p.base
	u.Path = u.Path[:strings.LastIndexByte(u.Path, '/')+1] + name
	return u.String()
}

// segment asks for one, and returns what it was refused with.
func (p *player) segment(ctx context.Context, n int) (refused string) {
	if p.kind.conns != two {
		return p.ask(ctx, p.relative(fmt.Sprintf("%d.ts", n))).refused()
	}
	var audio string
	var both sync.WaitGroup
	both.Go(func() { audio = p.ask(ctx, p.relative(fmt.Sprintf("a%d.m4a", n))).refused() })
	refused = p.ask(ctx, p.relative(fmt.Sprintf("%d.ts", n))).refused()
	both.Wait()
	if refused == "" {
		refused = audio
	}
	return refused
}

// cut asks for a segment and hangs up in the middle of it.
func (p *player) cut(ctx context.Context, n int) (refused string) {
	ctx, hangUp := context.WithCancel(ctx)
	defer hangUp()
	a := p.send(ctx, "GET", p.relative(fmt.Sprintf("slow%d.ts", n)), "")
	if a.body != nil {
		a.body.Read(make([]byte, 512))
		hangUp()
		a.body.Close()
	}
	return a.refused()
}

// play goes on from the first segments.
func (p *player) play(ctx context.Context, s *session, b *played, file io.ReadCloser) {
	var at float64 // where in the file
	media := func(n int) string {
		if p.kind.naming != progress {
			return p.segment(ctx, n)
		}
		if file == nil {
			a := p.send(ctx, "GET", p.base.String(), "", "Range", p.from(at))
			if refused := a.refused(); refused != "" {
				return refused
			}
			file = a.body
		}
		at += p.kind.seconds()
		if _, err := io.CopyN(io.Discard, file, int64(p.kind.seconds()*bitrate)); err != nil {
			file.Close()
			file = nil
		}
		return ""
	}
	defer func() {
		if file != nil {
			file.Close()
		}
	}()
	gets := func(refused string) bool {
		p.w.write(func(now float64) {
			if refused == "" {
				b.spells[len(b.spells)-1].to = now
			} else {
				b.over = now
			}
		})
		return refused == ""
	}
	due, n, acts := p.w.now()+p.kind.seconds(), 3, s.acts
	for {
		next := due
		acting := len(acts) > 0 && acts[0].at < due
		if acting {
			next = acts[0].at
		}
		if next >= s.until {
			p.w.until(ctx, s.until)
			return
		}
		if p.w.until(ctx, next); ctx.Err() != nil {
			return
		}
		refused := ""
		if acting {
			a := acts[0]
			acts = acts[1:]
			switch a.what {
			case pauses:
				from := p.w.now()
				for t := from; p.kind.ending == reports && t < a.until; t += 30 {
					p.w.until(ctx, t)
					p.report(ctx, "p")
				}
				if p.w.until(ctx, a.until); ctx.Err() != nil {
					return
				}
				now := p.w.now()
				refused = media(n)
				p.w.write(func(now2 float64) {
					b.pauses = append(b.pauses, pause{now - from, p.kind.conns == idles || p.kind.conns == each, refused})
					if refused == "" {
						b.spells = append(b.spells, spell{now2, now2})
					} else {
						b.over = now2
					}
				})
				if refused != "" {
					return
				}
			case hides:
				for t := a.at + 60; t < a.until && refused == ""; t += 60 {
					if p.w.until(ctx, t); ctx.Err() != nil {
						return
					}
					for range 5 {
						if refused = media(n); refused != "" {
							break
						}
						n++
					}
				}
			case seeks:
				n += 50
				if p.kind.naming == progress {
					if at = math.Mod(at+200, 800); file != nil {
						file.Close()
						file = nil
					}
				} else {
					refused = p.cut(ctx, n)
				}
			case roams:
				p.vanish()
			}
			due = p.w.now()
			if a.what == roams {
				due += p.kind.seconds()
			}
		} else {
			refused = media(n)
			due = max(due+p.kind.seconds(), p.w.now())
			n++
		}
		if ctx.Err() != nil {
			return
		}
		if !gets(refused) {
			p.w.write(func(float64) { b.interrupted = refused })
			return
		}
	}
}

// receive plays an answer without an end.
func (p *player) receive(ctx context.Context, s *session, b *played, answer io.ReadCloser) {
	for answer != nil {
		till, stop := context.WithCancel(ctx)
		ended := make(chan struct{})
		go func() {
			p.w.until(till, s.until)
			if p.kind.ending != vanishes {
				answer.Close()
			}
			close(ended)
		}()
		buf := make([]byte, 64<<10)
		for p.w.now() < s.until {
			if _, err := answer.Read(buf); err != nil {
				break
			}
			p.w.write(func(now float64) { b.spells[len(b.spells)-1].to = now })
		}
		stop()
		<-ended
		if p.w.now() >= s.until-0.5 || ctx.Err() != nil {
			return
		}
		a := p.send(ctx, "GET", p.base.String(), "") // it was cut off
		if refused := a.refused(); refused != "" {
			p.w.write(func(now float64) { b.interrupted, b.over = refused, now })
			return
		}
		answer = a.body
	}
}

// answer is one to a request, after redirects.
type answer struct {
	status int
	url    *url.URL
	body   io.ReadCloser
	err    error
}

// all reads it to its end.
func (a *answer) all() []byte {
	if a.body == nil {
		return nil
	}
	defer a.body.Close()
	all, _ := io.ReadAll(a.body)
	return all
}

// refused is "" for what passes, or else why it does not.
func (a *answer) refused() string {
	switch {
	case a.err != nil:
		return a.err.Error()
	case a.status < 300:
		return ""
	}
	var problem struct{ ErrorCode string }
	json.Unmarshal(a.all(), &problem)
	return fmt.Sprintf("%d %s", a.status, problem.ErrorCode)
}

// ask gets something small.
func (p *player) ask(ctx context.Context, path string) *answer {
	a := p.send(ctx, "GET", path, "")
	if a.body != nil {
		a.body = io.NopCloser(bytes.NewReader(a.all()))
	}
	return a
}

// send sends a request, and again for up to 15 s where a connection fails.
func (p *player) send(ctx context.Context, method, path, body string, header ...string) *answer {
	if strings.HasPrefix(path, "/") {
		path = "http://gate" + path
	}
	for end := p.w.now() + 15; ; {
		a, err := p.try(ctx, method, path, body, header...)
		if err == nil {
			return a
		}
		if ctx.Err() != nil || p.w.now() > end {
			return &answer{err: err}
		}
		p.w.until(ctx, p.w.now()+0.5)
	}
}

func (p *player) try(ctx context.Context, method, path, body string, header ...string) (*answer, error) {
	r, err := http.NewRequestWithContext(ctx, method, path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("X-User-Id", p.account.user)
	r.Header.Set("User-Agent", fmt.Sprintf("player-%d", p.n))
	switch {
	case strings.HasSuffix(path, "/cmcd"):
		r.Header.Set("Content-Type", "application/cmcd")
	case body != "":
		r.Header.Set("Content-Type", "application/json")
	}
	switch p.kind.naming {
	case byCMCD:
		r.Header.Set("CMCD-Session", fmt.Sprintf("sid=%q", p.sid))
	case bySession:
		r.Header.Set("X-Playback-Session-Id", p.sid)
	}
	for i := 0; i < len(header); i += 2 {
		if header[i+1] != "" {
			r.Header.Set(header[i], header[i+1])
		}
	}
	p.mu.Lock()
	client := p.client
	p.mu.Unlock()
	resp, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	return &answer{status: resp.StatusCode, url: resp.Request.URL, body: resp.Body}, nil
}
