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

// live serves the sample media under /live/<channel>/ as if it was being sent:
// a window that moves on with the clock and stays at the end. A channel begins
// when it is first tuned in to.
type live struct {
	mu    sync.Mutex
	began map[string]time.Time
}

// Of a channel: how long a segment is, how many the window has at first and at
// most, and how many there are.
const (
	segmentLength = 4 * time.Second
	firstSegments = 4
	windowSize    = 5
	allSegments   = 15
)

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
	playlistType  = regexp.MustCompile(`#EXT-X-(PLAYLIST-TYPE:VOD|ENDLIST)\n`)
	mediaSequence = regexp.MustCompile(`#EXT-X-MEDIA-SEQUENCE:(\d+)\n`)
	segment       = regexp.MustCompile(`#EXTINF:.*\n.*\n`)
)

// sliding makes a live playlist of one for a whole title. A master, or
// subtitles in one piece, stays as it is.
func sliding(playlist string, since time.Duration) string {
	segments := segment.FindAllString(playlist, -1)
	if len(segments) < allSegments {
		return playlist
	}
	last := available(since)
	first := max(0, last-windowSize)
	head, _, _ := strings.Cut(playlistType.ReplaceAllString(playlist, ""), "#EXTINF")
	head = mediaSequence.ReplaceAllStringFunc(head, func(line string) string {
		var number int
		fmt.Sscanf(line, "#EXT-X-MEDIA-SEQUENCE:%d", &number)
		return fmt.Sprintf("#EXT-X-MEDIA-SEQUENCE:%d\n", number+first)
	})
	return head + strings.Join(segments[first:last], "")
}

// dynamic makes a live MPD of a static one: the timeline of each track grows.
func dynamic(mpd string, began time.Time) string {
	last := available(time.Since(began))
	const first = firstSegments * segmentLength
	return strings.NewReplacer(
		`type="static"`, `type="dynamic" minimumUpdatePeriod="PT2S" timeShiftBufferDepth="PT20S" availabilityStartTime="`+
			began.Add(-first).UTC().Format(time.RFC3339Nano)+`"`,
		`mediaPresentationDuration="PT1M0.0S"`, ``,
		`</Period>`, `</Period><UTCTiming schemeIdUri="urn:mpeg:dash:utc:direct:2014" value="`+time.Now().UTC().Format(time.RFC3339Nano)+`" />`,
		`r="14"`, fmt.Sprintf(`r="%d"`, last-1), // video
		`r="13"`, fmt.Sprintf(`r="%d"`, last-2), // audio, its first segment stands alone
	).Replace(mpd)
}

// available is how many segments there are.
func available(since time.Duration) int {
	return min(firstSegments+int(since/segmentLength), allSegments)
}
