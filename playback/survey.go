package playback

import (
	"bytes"
	"cmp"
	"math"
	"net/url"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Survey is what a manifest says about the playback that asked for it.
type Survey struct {
	// List: it names titles, each a playback of its own, and is the manifest of none.
	List bool

	// Live: players ask for it again and again, each Period, which is 0 where it
	// is not told. Of a master playlist it is not known, and not set.
	Live   bool
	Period time.Duration

	// Segment is how long a segment is at most, or 0 where it is not told.
	Segment time.Duration

	// Elsewhere: it names media or manifests, and none of those that a player is
	// offered first is counted here. Who plays it asks here for nothing else.
	Elsewhere bool
}

// Survey reads a manifest: a playlist (RFC 8216), an MPD (ISO/IEC 23009-1) or a
// list of titles. What is none of these gives the zero Survey.
func (k Kinds) Survey(manifest []byte, at Place) Survey {
	t := k.tokener(at)
	manifest = bytes.TrimPrefix(manifest, bom)
	switch {
	case isXML(manifest):
		return t.surveyMPD(manifest)
	case isHLS(manifest):
		return t.surveyPlaylist(manifest)
	}
	return t.surveyList(manifest)
}

// bom is a byte order mark, which is no part of a playlist's first line.
var bom = []byte("\ufeff")

func isXML(manifest []byte) bool {
	return bytes.HasPrefix(bytes.TrimLeft(manifest, "\ufeff \t\r\n"), []byte("<"))
}

// isHLS reports whether a playlist is one of HLS: it has a tag of RFC 8216. Panels
// for IPTV write EXT-X-SESSION-DATA into lists of channels.
func isHLS(playlist []byte) bool {
	for {
		i := bytes.Index(playlist, []byte("#EXT-X-"))
		if i < 0 {
			return false
		}
		first := i == 0 || bytes.IndexByte([]byte("\n\r \t\xbf"), playlist[i-1]) >= 0 // of its line; \xbf ends a BOM
		if playlist = playlist[i:]; first && !bytes.HasPrefix(playlist, []byte("#EXT-X-SESSION-DATA")) {
			return true
		}
		playlist = playlist[1:]
	}
}

// surveyPlaylist reads a playlist of HLS. Of a media playlist segments decide what
// comes here, and their parts; of a master playlist the variants do: audio and
// subtitles may come from elsewhere, or not at all. A variant that follows one of
// the same bandwidth is its backup (RFC 8216, section 6.2.4).
func (t tokener) surveyPlaylist(playlist []byte) (s Survey) {
	var media, ended, backup bool
	named, known := t.look(), make(variables)
	bandwidths := make(map[string]bool)
	for len(playlist) > 0 {
		var line []byte
		line, playlist, _ = bytes.Cut(playlist, []byte("\n"))
		line = bytes.TrimSpace(line)
		if len(line) == 0 {
			continue
		}
		if line[0] != '#' {
			if !backup && !named.settled() {
				named.ref(known.resolve(string(line)))
			}
			backup = false
			if s.Segment > 0 && named.settled() { // hours of the same may follow
				ended = ended || bytes.Contains(playlist, []byte("#EXT-X-ENDLIST"))
				break
			}
			continue
		}
		tag, value, _ := bytes.Cut(line, []byte(":"))
		switch string(tag) {
		case "#EXTINF":
			media = true
		case "#EXT-X-TARGETDURATION":
			media = true
			s.Segment = seconds(value)
		case "#EXT-X-ENDLIST":
			ended = true
		case "#EXT-X-PLAYLIST-TYPE":
			ended = ended || string(bytes.TrimSpace(value)) == "VOD"
		case "#EXT-X-STREAM-INF":
			if m := hlsBandwidth.FindSubmatch(line); m != nil && !named.settled() {
				backup = bandwidths[string(m[1])]
				bandwidths[string(m[1])] = true
			}
		case "#EXT-X-DEFINE":
			if !named.settled() {
				known.define(string(line), t.at.Query)
			}
		case "#EXT-X-PART", "#EXT-X-PRELOAD-HINT":
			if m := hlsURI.FindSubmatch(line); m != nil && !named.settled() && !bytes.Contains(line, []byte("TYPE=MAP")) {
				named.ref(known.resolve(string(m[1])))
			}
		}
	}
	s.Elsewhere = named.elsewhere()
	if s.Live = media && !ended; s.Live {
		s.Period = s.Segment
	}
	return s
}

var (
	hlsBandwidth = regexp.MustCompile(`[:,]\s*BANDWIDTH=(\d+)`)
	hlsURI       = regexp.MustCompile(`[:,]\s*URI="([^"]*)"`)
)

// surveyList reads a playlist that is none of HLS. It lists titles if its lines
// have several, wherever they are to be had, or if it says of one that it has no
// end or stands in a television's guide. Else it is one title's own, and its
// lines are what there is to play.
func (t tokener) surveyList(list []byte) Survey {
	named, guide, title := t.look(), false, ""
	headed := bytes.HasPrefix(bytes.TrimLeft(list, "\ufeff \t\r\n"), []byte("#EXTM3U"))
	for line := range bytes.Lines(list) {
		line = bytes.TrimSpace(line)
		if info, ok := bytes.CutPrefix(line, []byte("#EXTINF:")); ok {
			guide = guide || bytes.HasPrefix(bytes.TrimSpace(info), []byte("-")) || bytes.Contains(info, []byte(`="`))
		}
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		at := t.follow(named.home, string(line))
		if !headed && (bytes.IndexByte(line, ' ') >= 0 || at.kind(t.kinds) == Other && !bytes.HasPrefix(bytes.ToLower(line[:min(4, len(line))]), []byte("http"))) {
			return Survey{} // some other text
		}
		headed = true
		another := t.kinds.title(at.plain())
		title = cmp.Or(title, another)
		if guide || another != "" && another != title {
			return Survey{List: true}
		}
		if named.address(at); named.count == maxNamed {
			break
		}
	}
	return Survey{Elsewhere: named.elsewhere()}
}

// title tells lines of a list apart: a manifest's number is a title as any name
// is, and a segment's says nothing, in whatever folder.
func (k Kinds) title(p string) string {
	file := p[strings.LastIndexByte(p, '/')+1:]
	switch ext := path.Ext(file); {
	case (ext == ".ts" || ext == ".m4s") && !titled(file):
		return ""
	case number.MatchString(strings.TrimSuffix(file, ext)) && k.Of(p) == Manifest:
		return p
	}
	return Dir(p, math.MaxInt)
}

// maxNamed is how many URLs of a manifest are looked at for one that comes here,
// or for another title.
const maxNamed = 100

// look is a search for what of a manifest comes here.
type look struct {
	tokener
	home  address // the manifest's own
	count int
	ours  bool
}

func (t tokener) look() look {
	path, _, _ := CutToken(t.at.Path)
	return look{tokener: t, home: address{path: path}}
}

// ref looks at a URL in the manifest.
func (l *look) ref(ref string) { l.address(l.follow(l.home, ref)) }

func (l *look) address(at address) {
	l.count++
	l.ours = l.ours || at.kind(l.kinds) != Other
}

func (l *look) settled() bool   { return l.ours || l.count >= maxNamed }
func (l *look) elsewhere() bool { return l.count > 0 && !l.ours }

// address is where a URL leads.
type address struct {
	host string // "" if it is the gate's
	path string // escaped
}

// follow is where a URL leads from an address. It bears with what net/url does
// not: MPDs have templates in their URLs, and players resolve a stray % as well.
func (t tokener) follow(from address, ref string) address {
	ref = ref[:pathEnd(ref)]
	switch {
	case ref == "":
		return from
	case len(from.path)+len(ref) > maxVariable:
		return address{host: "?"}
	case isRelative(ref):
		return address{from.host, from.path[:strings.LastIndexByte(from.path, '/')+1] + ref}
	case !strings.HasPrefix(ref, "//") && ref[0] == '/':
		return address{from.host, ref}
	}
	scheme, rest, _ := strings.Cut(ref, "//")
	if scheme != "" && !strings.EqualFold(scheme, "http:") && !strings.EqualFold(scheme, "https:") {
		return address{host: "?"} // data:, udp: or what is none
	}
	host, path, _ := strings.Cut(rest, "/")
	if host = host[strings.LastIndexByte(host, '@')+1:]; t.isOurs(host) {
		host = ""
	}
	return address{host, "/" + path}
}

// plain is the path as the gate reads that of a request.
func (a address) plain() string {
	p, _, _ := CutToken(a.path)
	if strings.Contains(p, "%") {
		if plain, err := url.PathUnescape(p); err == nil {
			return plain
		}
	}
	return p
}

// kind is what the gate takes a request of that address for: of another host's
// it hears nothing.
func (a address) kind(k Kinds) Kind {
	if a.host != "" {
		return Other
	}
	return k.Of(a.plain())
}

// seconds reads a number of seconds; what is none is 0.
func seconds(s []byte) time.Duration {
	n, _ := strconv.ParseFloat(string(bytes.TrimSpace(s)), 64)
	return inSeconds(n)
}

// inSeconds is 0 for what is negative or no number, and a day at most.
func inSeconds(n float64) time.Duration {
	if !(n > 0) {
		return 0
	}
	return time.Duration(min(n, 24*60*60) * float64(time.Second))
}

// MayBeList reports whether the manifest of a path may be a list of titles.
func MayBeList(p string) bool {
	switch strings.ToLower(path.Ext(p)) {
	case ".m3u8", ".m3u":
		return true
	}
	return false
}
