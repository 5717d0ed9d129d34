package e2e

import (
	"encoding/binary"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// lowLatency serves the sample media as low-latency HLS under /ll/<channel>/: in
// parts of a second, four of which are a segment. A channel begins when it is first
// tuned in to, and ends with the title.
type lowLatency struct {
	init  []byte
	parts [][]byte

	mu    sync.Mutex
	began map[string]time.Time
}

// Of a channel: how long a part is, how many are a segment, how many there are when
// it begins, and how many segments are in the window.
const (
	partLength     = time.Second
	segmentParts   = 4
	firstParts     = 18
	windowSegments = 4
)

func newLowLatency(t *testing.T) http.Handler {
	t.Helper()
	file := filepath.Join(t.TempDir(), "parts.mp4")
	out, err := exec.Command("ffmpeg", "-v", "error", "-nostdin", "-i", root+"/testdata/media/byterange/index.m3u8", "-c", "copy",
		"-f", "mp4", "-movflags", "+empty_moov+default_base_moof+skip_trailer", "-frag_duration", strconv.Itoa(int(partLength/time.Microsecond)), file).CombinedOutput()
	if err != nil {
		t.Fatalf("cutting the sample into parts: %v\n%s", err, out)
	}
	film, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	l := &lowLatency{began: make(map[string]time.Time)}
	for len(film) > 0 { // boxes of ISO/IEC 14496-12
		size := binary.BigEndian.Uint32(film)
		switch string(film[4:8]) {
		case "moof":
			l.parts = append(l.parts, film[:size:size])
		case "mdat":
			l.parts[len(l.parts)-1] = append(l.parts[len(l.parts)-1], film[:size]...)
		default:
			l.init = append(l.init, film[:size]...)
		}
		film = film[size:]
	}
	return l
}

func (l *lowLatency) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := l.tuneIn(r.PathValue("channel"))
	name := r.PathValue("file")
	kind, number := strings.TrimSuffix(name, path.Ext(name)), 0
	if digits := strings.IndexAny(kind, "0123456789"); digits >= 0 {
		number, _ = strconv.Atoi(kind[digits:])
		kind = kind[:digits]
	}
	w.Header().Set("Cache-Control", "no-store")
	switch kind {
	case "master":
		w.Header().Set("Content-Type", "application/vnd.apple.mpegurl")
		fmt.Fprint(w, "#EXTM3U\n#EXT-X-VERSION:9\n#EXT-X-STREAM-INF:BANDWIDTH=40000,RESOLUTION=160x90,FRAME-RATE=10.000,CODECS=\"avc1.64000c,mp4a.40.2\"\nindex.m3u8\n")
	case "index":
		// _HLS_msn and _HLS_part say which part the player waits for.
		if segment, err := strconv.Atoi(r.FormValue("_HLS_msn")); err == nil {
			part := segmentParts - 1
			if given, err := strconv.Atoi(r.FormValue("_HLS_part")); err == nil {
				part = given
			}
			l.await(r, began, segment*segmentParts+part)
		}
		w.Header().Set("Content-Type", "application/vnd.apple.mpegurl")
		fmt.Fprint(w, l.playlist(began))
	case "init":
		w.Header().Set("Content-Type", "video/mp4")
		w.Write(l.init)
	case "part", "segment":
		parts := 1
		if kind == "segment" {
			number, parts = number*segmentParts, segmentParts
		}
		l.await(r, began, number+parts-1)
		if number+parts > l.sent(began) {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "video/mp4")
		for _, part := range l.parts[number : number+parts] {
			w.Write(part)
		}
	default:
		http.NotFound(w, r)
	}
}

func (l *lowLatency) tuneIn(channel string) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.began[channel].IsZero() {
		l.began[channel] = time.Now()
	}
	return l.began[channel]
}

// sent is how many parts there are.
func (l *lowLatency) sent(began time.Time) int {
	return min(len(l.parts), firstParts+int(time.Since(began)/partLength))
}

// await returns when there is a part, or nobody waits for it any more.
func (l *lowLatency) await(r *http.Request, began time.Time, part int) {
	timer := time.NewTimer(time.Until(began.Add(time.Duration(part+1-firstParts) * partLength)))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.Context().Done():
	}
}

func (l *lowLatency) playlist(began time.Time) string {
	sent := l.sent(began)
	segments := sent / segmentParts
	first := max(0, segments-windowSegments)
	var out strings.Builder
	fmt.Fprintf(&out, "#EXTM3U\n#EXT-X-VERSION:9\n#EXT-X-TARGETDURATION:5\n#EXT-X-PART-INF:PART-TARGET=1.1\n"+
		"#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=3.3\n#EXT-X-MEDIA-SEQUENCE:%d\n#EXT-X-MAP:URI=\"init.mp4\"\n#EXT-X-PROGRAM-DATE-TIME:%s\n",
		first, began.Add(time.Duration(first*segmentParts-firstParts)*partLength).UTC().Format("2006-01-02T15:04:05.000Z07:00"))
	for segment := first; segment <= segments; segment++ {
		for part := segment * segmentParts; segment >= segments-1 && part < min(sent, (segment+1)*segmentParts); part++ {
			fmt.Fprintf(&out, "#EXT-X-PART:DURATION=1.0,URI=\"part%d.m4s\"", part)
			if part%segmentParts == 0 {
				out.WriteString(",INDEPENDENT=YES") // it begins with a picture of its own
			}
			out.WriteString("\n")
		}
		if segment < segments {
			fmt.Fprintf(&out, "#EXTINF:4.0,\nsegment%d.m4s\n", segment)
		}
	}
	if sent == len(l.parts) {
		out.WriteString("#EXT-X-ENDLIST\n")
	} else {
		fmt.Fprintf(&out, "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"part%d.m4s\"\n", sent)
	}
	return out.String()
}
