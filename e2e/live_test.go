package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path"
	"regexp"
	"strings"
	"sync"
	"time"
)

// live serves the sample media under /live/<channel>/ as if it was being sent,
// over and over: a window that moves on with the clock. A channel begins when it
// is first tuned in to.
type live struct {
	mu    sync.Mutex
	began map[string]time.Time
}

// Of a channel: how long a segment is, how many there are, how many of them the
// title has, and how many are in the window.
const (
	segmentLength = 4 * time.Second
	firstSegments = 4
	titleSegments = 15
	windowSize    = 5
)

// sent is how many segments there are since a channel began.
func sent(since time.Duration) int { return firstSegments + int(since/segmentLength) }

func newLive() http.Handler { return &live{began: make(map[string]time.Time)} }

func (l *live) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	channel := r.PathValue("channel")
	file := root + "/testdata/media" + strings.TrimPrefix(r.URL.Path, "/live/"+channel)
	began := l.tuneIn(channel)
	text, err := os.ReadFile(file)
	switch {
	case err != nil || path.Ext(file) != ".m3u8" && path.Ext(file) != ".mpd":
		http.ServeFile(w, r, file)
	case path.Ext(file) == ".mpd":
		w.Header().Set("Content-Type", "application/dash+xml")
		fmt.Fprint(w, dynamic(string(text), began))
	default:
		w.Header().Set("Content-Type", "application/vnd.apple.mpegurl")
		fmt.Fprint(w, sliding(string(text), time.Since(began)))
	}
}

func (l *live) tuneIn(channel string) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.began[channel].IsZero() {
		l.began[channel] = time.Now()
	}
	return l.began[channel]
}

var (
	vod     = regexp.MustCompile(`#EXT-X-(PLAYLIST-TYPE:VOD|MEDIA-SEQUENCE:\d+)\n`)
	segment = regexp.MustCompile(`#EXTINF:.*\n.*\n`)
	period  = regexp.MustCompile(`(?s)<Period id="0" start="PT0.0S">(.*)</Period>`)
)

// sliding makes a live playlist of one for a whole title. A master, or
// subtitles in one piece, stays as it is.
func sliding(playlist string, since time.Duration) string {
	segments := segment.FindAllString(playlist, -1)
	if len(segments) != titleSegments {
		return playlist
	}
	last := sent(since)
	first := max(0, last-windowSize)
	head, _, _ := strings.Cut(vod.ReplaceAllString(playlist, ""), "#EXTINF")
	var out strings.Builder
	fmt.Fprintf(&out, "%s#EXT-X-MEDIA-SEQUENCE:%d\n#EXT-X-DISCONTINUITY-SEQUENCE:%d\n", head, first, (first+titleSegments-1)/titleSegments)
	for i := first; i < last; i++ {
		if i > 0 && i%titleSegments == 0 {
			out.WriteString("#EXT-X-DISCONTINUITY\n")
		}
		out.WriteString(segments[i%titleSegments])
	}
	return out.String()
}

// dynamic makes a live MPD of a static one: a period for each time the title is
// sent, the last of which grows.
func dynamic(mpd string, began time.Time) string {
	const first, title = firstSegments * segmentLength, titleSegments * segmentLength
	clock := func(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }
	content := period.FindStringSubmatch(mpd)[1]
	var periods strings.Builder
	for i, left := 0, sent(time.Since(began)); left >= 2; i, left = i+1, left-titleSegments {
		segments := min(left, titleSegments)
		timelines := strings.NewReplacer(
			`r="14"`, fmt.Sprintf(`r="%d"`, segments-1), // video
			`r="13"`, fmt.Sprintf(`r="%d"`, segments-2), // audio, its first segment stands alone
		)
		fmt.Fprintf(&periods, `<Period id="%d" start="PT%vS">%s</Period>`, i, float64(i)*title.Seconds(), timelines.Replace(content))
	}
	mpd = period.ReplaceAllLiteralString(mpd, periods.String()+`<UTCTiming schemeIdUri="urn:mpeg:dash:utc:direct:2014" value="`+clock(time.Now())+`" />`)
	return strings.NewReplacer(
		`type="static"`, `type="dynamic" minimumUpdatePeriod="PT2S" timeShiftBufferDepth="PT20S" availabilityStartTime="`+clock(began.Add(-first))+`"`,
		`mediaPresentationDuration="PT1M0.0S"`, ``,
		"<MPD\n\t", "<MPD ", // what GStreamer takes for an MPD
	).Replace(mpd)
}
