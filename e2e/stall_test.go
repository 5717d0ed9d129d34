package e2e

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/streamguard/streamguard/redisstore/redistest"
)

// A segment that does not fit into what is between a node and a player.
const manyBytes = 32 << 20

// startStalling starts a node in front of a film, whose first segment is long, and of
// channels.
func startStalling(t *testing.T, c *channels, timeout string) *secured {
	t.Helper()
	servers := "\tservers {\n\t\ttimeouts {\n\t\t\t" + timeout + "\n\t\t}\n\t}\n"
	folder := t.TempDir()
	for name, text := range map[string]string{
		"index.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n0.ts\n#EXTINF:4,\n1.ts\n#EXTINF:4,\n2.ts\n#EXT-X-ENDLIST\n",
		"0.ts":       "", "1.ts": "short", "2.ts": "short",
	} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Truncate(filepath.Join(folder, "0.ts"), manyBytes); err != nil {
		t.Fatal(err)
	}
	return startSecured(t, servers, site("reverse_proxy /tv/* "+c.Listener.Addr().String()+"\n\thandle_path /film/* {\n\t\troot "+folder+"\n\t\tfile_server\n\t}",
		inRedis(redistest.Start(t)), "playback auto", "limit 1", "interval 3s", "ttl 90s"))
}

// asks asks for a film's long segment, and does not read it.
func (p *app) asks(t *testing.T) io.ReadCloser {
	t.Helper()
	p.get(t, 200, "/film/index.m3u8")
	resp, err := p.open("0.ts")
	if err != nil || resp.StatusCode != 200 || resp.ContentLength != manyBytes {
		t.Fatal(resp, err)
	}
	return resp.Body
}

// stalled is a player that has stopped reading an answer, and the guard that it has.
type stalled struct {
	*app
	body io.Reader
	held guard
}

// stalls opens the film for a user of its own, or a channel, and reads no more of it. It
// closes that when the test is over.
func (s *secured) stalls(t *testing.T, what, version string) *stalled {
	t.Helper()
	p := s.app(t, what+" by "+version, version)
	var body io.ReadCloser
	if what == "film" {
		body = p.asks(t)
	} else {
		body = p.tunes(t, tv(p.user))
	}
	t.Cleanup(func() { body.Close() })
	return &stalled{p, body, s.only(t, p.user)}
}

// isSent reports whether the node has done with the film's segment.
func (p *stalled) isSent() bool {
	return strings.Contains(p.node.log.String(), "/film/~"+p.held.GuardID+"/0.ts")
}

// goesOn insists that a film whose segment was cut has its slot still, and plays on.
func (p *stalled) goesOn(t *testing.T) {
	t.Helper()
	p.node.atLimit(t, p.user)
	if got, err := io.Copy(io.Discard, p.body); got == manyBytes || err == nil && !strings.HasSuffix(p.user, "HTTP/3") { // quic-go says no error
		t.Errorf("the %s ends after %d bytes: %v", p.user, got, err)
	}
	p.get(t, 200, "0.ts")
	p.get(t, 200, "1.ts")
	p.node.same(t, p.user, p.held)
}

// tv is a channel of a user's own.
func tv(user string) string { return "/tv/" + strings.ReplaceAll(user, " ", "-") + ".ts" }

// Who does not read for a while, a segment or a channel, keeps the slot beside starts
// at the limit, and reads on. Another one, whose connection is closed meanwhile, is over.
func TestPlayerThatDoesNotReadKeepsItsSlot(t *testing.T) {
	t.Parallel()
	c := newChannels(t)
	n := startStalling(t, c, "")
	var films, channels []*stalled
	for _, version := range versions {
		films = append(films, n.stalls(t, "film", version))
		channels = append(channels, n.stalls(t, "channel", version))
	}
	for _, p := range channels {
		p.held = n.becomes(t, p.user, p.held)
		c.stalls(t, tv(p.user))
	}
	ends := n.app(t, "ends", "HTTP/1.1")
	ends.get(t, 200, "/film/index.m3u8")
	ends.get(t, 200, "1.ts")
	ends.close()
	n.isClosed(t, ends.user)
	before := make(map[*stalled]guard)
	for _, p := range slices.Concat(films, channels) {
		before[p] = n.only(t, p.user)
		n.atLimit(t, p.user)
	}
	for p, was := range before {
		eventually(t, "the guard of "+p.user+" is refreshed", func() bool {
			return n.only(t, p.user).ExpiresAt.After(was.ExpiresAt)
		})
	}
	for _, p := range films {
		if p.isSent() {
			t.Errorf("all of the %s is sent: it did not stall", p.user)
		}
		if got, err := io.Copy(io.Discard, p.body); err != nil || got != manyBytes {
			t.Errorf("the %s ends after %d bytes: %v", p.user, got, err)
		}
		p.get(t, 200, "1.ts")
	}
	var paths []string
	for _, p := range channels {
		go io.Copy(io.Discard, p.body)
		paths = append(paths, tv(p.user))
	}
	c.sendsOn(t, paths...)
	for _, p := range slices.Concat(films, channels) {
		n.same(t, p.user, p.held)
	}
}

// What Caddy has cut because it was not read is not what the player has closed: a segment's
// slot is kept for who asks for it again. A channel is over in seconds, since nobody may be
// there any more, unless it is asked for again.
func TestAnswerThatIsNotReadIsCut(t *testing.T) {
	t.Parallel()
	c := newChannels(t)
	n := startStalling(t, c, "write_idle 2500ms")
	var films, channels, back []*stalled
	for _, version := range versions {
		channels = append(channels, n.stalls(t, "channel", version))
		back = append(back, n.stalls(t, "channel that is back", version))
	}
	for _, p := range slices.Concat(channels, back) {
		p.held = n.becomes(t, p.user, p.held)
	}
	for _, version := range versions {
		films = append(films, n.stalls(t, "film", version))
	}
	ends := n.app(t, "ends", "HTTP/1.1")
	ends.get(t, 200, "/film/index.m3u8")
	ends.get(t, 200, "1.ts")
	for _, p := range films {
		eventually(t, "the "+p.user+" is cut", p.isSent)
	}
	ends.close()
	for _, p := range back {
		c.ends(t, tv(p.user))
		resp, err := p.open(tv(p.user))
		if err != nil || resp.StatusCode != 200 {
			t.Fatal(resp, err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		go io.Copy(io.Discard, resp.Body)
	}
	n.isClosed(t, ends.user)
	for _, p := range films {
		p.goesOn(t)
	}
	for _, p := range channels {
		n.isClosed(t, p.user)
		n.want(t, 201, p.user, "POST", "/guards", `{"streamId":"next"}`, "User-Agent", "another")
	}
	for _, p := range back {
		n.atLimit(t, p.user)
		n.same(t, p.user, p.held)
	}
}

// A bound on the time of a whole answer cuts who reads slowly. That is the server's
// doing, too. HTTP/3 has no such bound.
func TestAnswerThatIsNotReadInTimeIsCut(t *testing.T) {
	t.Parallel()
	c := newChannels(t)
	n := startStalling(t, c, "write 2500ms")
	var films, channels []*stalled
	for _, version := range []string{"HTTP/1.1", "HTTP/2"} {
		films = append(films, n.stalls(t, "film", version))
		channels = append(channels, n.stalls(t, "channel", version))
	}
	for _, p := range channels {
		p.held = n.becomes(t, p.user, p.held)
	}
	for _, p := range films {
		eventually(t, "the "+p.user+" is cut", p.isSent)
	}
	for _, p := range channels {
		c.ends(t, tv(p.user))
		n.isClosed(t, p.user)
	}
	for _, p := range films {
		p.goesOn(t)
	}
}

// Who speaks HTTP/2 and is gone without a word takes nothing of the connection, not even
// the end of its answers. A channel is over all the same, and so is one that is revoked; a
// segment's slot is kept.
func TestClientOfHTTP2ThatVanishes(t *testing.T) {
	t.Parallel()
	c := newChannels(t)
	n := startStalling(t, c, "write_idle 2500ms")
	film, channel := n.stalls(t, "film", "HTTP/2"), n.stalls(t, "channel", "HTTP/2")
	never := startStalling(t, c, "write_idle 1h")
	revoked := never.stalls(t, "revoked", "HTTP/2")
	for _, p := range []*stalled{channel, revoked} {
		p.held = p.node.becomes(t, p.user, p.held)
	}
	for _, p := range []*stalled{film, channel, revoked} {
		close(p.gone)
		go io.Copy(io.Discard, p.body) // what it would take, were it there
	}
	c.stalls(t, tv(revoked.user))
	never.operateWell(t, "revoke", revoked.user, revoked.held.GuardID)
	c.ends(t, tv(revoked.user))
	c.ends(t, tv(channel.user))
	n.isClosed(t, channel.user)
	n.want(t, 201, channel.user, "POST", "/guards", `{"streamId":"next"}`, "User-Agent", "another")
	eventually(t, "the film is cut", film.isSent)
	n.atLimit(t, film.user)
}
