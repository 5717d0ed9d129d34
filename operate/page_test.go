package operate

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"github.com/streamguard/streamguard/audience"
	"github.com/streamguard/streamguard/guard"
)

// reportOf is the report of an audience in which a user has so many playbacks at once.
func reportOf(t *testing.T, user, stream, example string, playbacks int, lasts time.Duration) audience.Report {
	t.Helper()
	a, now := audience.New(), time.Date(2026, 11, 27, 20, 0, 0, 0, time.UTC)
	a.Watch(now)
	policy := guard.Policy{Limit: 2, Interval: time.Minute, TTL: 90 * time.Second, Rules: []guard.Rule{{Per: "device", Limit: 1, AtLimit: guard.ReplaceOldest}}}
	var held []guard.Guard
	for n := range playbacks {
		c := guard.Claim{User: user, ID: guard.NewID(user, ""), Stream: stream, Device: fmt.Sprint("d", n%2), Client: 1, Intent: guard.Play}
		at := now.Add(time.Duration(n) * time.Second)
		a.Start(&audience.Start{At: at, Claim: c, Policy: policy, Beside: held, Example: example})
		held = append(held, guard.Guard{ID: c.ID, User: user, Stream: stream, Device: c.Device, Client: 1, CreatedAt: at, ExpiresAt: at.Add(time.Minute), RemovedAt: at.Add(90 * time.Second)})
		a.Request(&audience.Request{At: at, User: user, ID: c.ID, Stream: stream, TTL: policy.TTL})
		a.Request(&audience.Request{At: at.Add(lasts), User: user, ID: c.ID, Stream: stream, TTL: lasts + time.Second})
	}
	r, ok := a.Report()
	if !ok {
		t.Fatal("nobody has watched")
	}
	return r
}

// written is a page, read by a parser.
func written(t *testing.T, plain bool, reports ...audience.Report) (text string, nodes map[string][]*html.Node) {
	t.Helper()
	var b bytes.Buffer
	if err := WritePage(&b, reports, plain); err != nil {
		t.Fatal(err)
	}
	text = b.String()
	root, err := html.Parse(&b)
	if err != nil {
		t.Fatal(err)
	}
	nodes = make(map[string][]*html.Node)
	for n := range root.Descendants() {
		if n.Type == html.ElementNode {
			nodes[n.Data] = append(nodes[n.Data], n)
		}
	}
	return text, nodes
}

// A page asks for nothing, runs nothing, and allows itself no more.
func TestPageIsAlone(t *testing.T) {
	const evil = "</title><script>alert(1)</script><img src=x onerror=alert(1)>\x1b[2J\u202e"
	hostile := reportOf(t, evil, evil, evil, 5, time.Hour)
	hostile.Site, hostile.Notes = evil, []string{evil + strings.Repeat("x", 1<<20)}
	hostile.Uncounted = []audience.Uncounted{{Kind: "media", Paths: evil, Example: evil, Requests: 1}}
	hostile.Crowded = []audience.Crowd{{Stream: evil, Paths: []string{evil, evil}}}
	hostile.Lines = &audience.Lines{Read: 1, Broken: 1, BrokenAt: evil}
	for name, reports := range map[string][]audience.Report{
		"nobody": nil, "one playback of no length": {reportOf(t, "alice", "a", "GET /a", 1, 0)}, "two stores": {hostile, reportOf(t, "bob", "b", "GET /b", 3, 2000*time.Hour)},
	} {
		for _, plain := range []bool{true, false} {
			text, nodes := written(t, plain, reports...)
			for tag, found := range nodes {
				switch tag {
				case "script", "img", "link", "iframe", "object", "embed", "form", "base", "a", "image", "use":
					t.Errorf("%s: a <%s>", name, tag)
				}
				for _, n := range found {
					for _, a := range n.Attr {
						if a.Key == "style" || a.Key == "src" || a.Key == "href" || strings.HasPrefix(a.Key, "on") || strings.Contains(a.Val, "//") {
							t.Errorf("%s: <%s %s=%q>", name, tag, a.Key, a.Val)
						}
					}
				}
			}
			style := nodes["style"][0].FirstChild.Data
			sum := sha256.Sum256([]byte(style))
			want := "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
			if policy := nodes["meta"][1].Attr[1].Val; !strings.HasPrefix(policy, want) || strings.Contains(style, "@import") || strings.Contains(style, "url(h") {
				t.Errorf("%s: policy %q, want %q", name, policy, want)
			}
			if strings.ContainsAny(text, "\x1b\u202e") || strings.Contains(text, "NaN") || strings.Contains(text, "ZgotmplZ") || len(text) > 200_000 {
				t.Errorf("%s: %d bytes with something in it that is not to be there", name, len(text))
			}
		}
	}
}

// What charts show is in tables as well.
func TestPageHasTheNumbers(t *testing.T) {
	r := reportOf(t, "alice", "films/a", "2026-11-27T20:00:00Z GET /alice/a.ts box", 4, 10*time.Minute)
	_, nodes := written(t, true, r)
	var cells []string
	for _, row := range nodes["tr"] {
		var words []string
		for n := range row.Descendants() {
			if n.Type == html.TextNode && strings.TrimSpace(n.Data) != "" {
				words = append(words, n.Data)
			}
		}
		cells = append(cells, strings.Join(words, "|"))
	}
	all := strings.Join(cells, "\n")
	for _, want := range []string{"1|1|3|75.00 %", "2|1|2|50.00 %", "4|0|0|0.00 %", "4|1|1|", "limit 1 per device replace|0|0|2|0.00 %", "limit 2|1|2|0|50.00 %", "alice|4|2026-11-27 20:00|4|"} {
		if !strings.Contains("\n"+all, "\n"+want) {
			t.Errorf("no row %q in\n%s", want, all)
		}
	}
	// Who is not to be named is not, wherever his name stands.
	text, _ := written(t, false, r)
	if strings.Contains(text, "alice") || !strings.Contains(text, "2bd806c97f0e00af") {
		t.Error("the page names alice")
	}
}
