package caddymodule

import (
	"path"
	"regexp"
	"strings"
	"testing"

	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/playback"
)

// Each row of the table of layouts is played. With the stream that it says a title
// is one guard, whichever of its URLs are asked for; another title is another; and
// where there are two slots a third is one too many.
func TestLayoutsOfPackagers(t *testing.T) {
	kind := regexp.MustCompile("`kind (media) ([^`]+)`")
	for _, row := range table(t, readDoc(t), "## Streams of packagers") {
		t.Run(row[0], func(t *testing.T) {
			h := Handler{
				Playback: "auto",
				Stream:   strings.Replace(code(row[2]), "{query.", "{http.request.uri.query.", 1),
				Limits:   []Limit{{Limit: "2"}},
			}
			if m := kind.FindStringSubmatch(row[0]); m != nil {
				h.Kinds = []Kinds{{Kind: m[1], Paths: []string{m[2]}}}
			}
			urls := strings.Fields(strings.ReplaceAll(row[1], "`", ""))
			withGate(t, h, func(g *site) {
				alien := g.plays(urls, "alien", 1)
				heat := g.plays(urls, "heat", 2)
				if alien.Stream == "" || alien.Stream == heat.Stream {
					t.Errorf("two titles are %q and %q", alien.Stream, heat.Stream)
				}
				// A segment that has lost its token is part of what plays, also on
				// another of the user's devices.
				for _, url := range urls[1:] {
					if g.read.kinds.Of(ask("GET", url).URL.Path) == playback.Media {
						g.get(200, url, "User-Agent", "another")
						g.get(200, strings.ReplaceAll(url, "alien", "heat"), "User-Agent", "another")
					}
				}
				g.holds(2)
				g.get(429, g.sentTo(strings.ReplaceAll(urls[0], "alien", "brazil")))
			})
		})
	}
}

// plays plays a title from its first URL on and returns its guard, which makes so
// many.
func (g *site) plays(urls []string, title string, held int) guard.Guard {
	g.t.Helper()
	folder := "" // with the token in it
	for i, url := range urls {
		url = strings.ReplaceAll(url, "alien", title)
		if i == 0 {
			url = g.sentTo(url)
			if _, id, found := playback.CutToken(url); found {
				folder = "~" + id.String() + "/"
			}
			g.get(200, url)
			continue
		}
		dir, file := path.Split(url)
		g.get(200, dir+folder+file)
	}
	return g.holds(held)[held-1]
}

// sentTo is the URL that a playback's first request ends at.
func (g *site) sentTo(url string) string {
	g.t.Helper()
	w := g.do(ask("GET", url))
	if w.Code != 302 {
		return url
	}
	return path.Dir(url) + "/" + w.Header().Get("Location")
}
