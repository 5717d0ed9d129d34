package playback

import (
	"bytes"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/streamguard/streamguard/guard"
)

// AddToken writes a path token into the URLs of a manifest that would lose it:
// absolute ones of the same host, of manifests and media, and relative ones
// that climb over it and would lead to another place besides. Other relative
// ones carry it by themselves. path, escaped and with its token, and host are
// as in the manifest's request.
func (k Kinds) AddToken(manifest []byte, path, host string, id guard.ID) []byte {
	folders := strings.Split(strings.TrimPrefix(path, "/"), "/")
	t := tokener{kinds: k, host: host, token: "~" + id.String() + "/", folders: folders[:len(folders)-1]}
	if bytes.HasPrefix(bytes.TrimLeft(manifest, "\ufeff \t\r\n"), []byte("<")) {
		return t.dash(manifest)
	}
	return t.hls(manifest)
}

// tokener writes a token into the URLs of a manifest in these folders.
type tokener struct {
	kinds       Kinds
	host, token string
	folders     []string // the token among them
	climb       int      // how many folders the URLs climb that go by a BaseURL
}

var uriAttribute = regexp.MustCompile(`(\bURI=")([^"]*)(")`)

// hls finds the URLs of a playlist (RFC 8216, section 4.1): lines of their own,
// and URI attributes.
func (t tokener) hls(playlist []byte) []byte {
	lines := bytes.Split(playlist, []byte("\n"))
	for i, line := range lines {
		switch url := bytes.TrimSpace(line); {
		case len(url) == 0:
		case url[0] == '#':
			lines[i] = replaceMiddle(uriAttribute, line, t.anywhere)
		default:
			lines[i] = bytes.Replace(line, url, []byte(t.anywhere(string(url))), 1)
		}
	}
	return bytes.Join(lines, []byte("\n"))
}

var (
	baseURL      = regexp.MustCompile(`(<(?:\w+:)?BaseURL(?:\s[^>]*)?>\s*)([^<\s]+)(\s*<)`)
	location     = regexp.MustCompile(`(<(?:\w+:)?(?:Patch)?Location(?:\s[^>]*)?>\s*)([^<\s]+)(\s*<)`)
	xlink        = regexp.MustCompile(`(\sxlink:href=")([^"]*)(")`)
	urlAttribute = regexp.MustCompile(`(\s(?:media|initialization|sourceURL|index)=")([^"]*)(")`)
	firstPeriod  = regexp.MustCompile(`<(\w+:)?Period[\s/>]`)
)

// dash finds the URLs of an MPD (ISO/IEC 23009-1, section 5.6). Relative ones go
// by a BaseURL of the whole, which is its own folder with the token as far up as
// they climb. One that has none is given it even if they do not: FFmpeg resolves
// them against what it asked for, not where it was sent.
func (t tokener) dash(mpd []byte) []byte {
	t.climb = climb(baseURL, mpd) + climb(urlAttribute, mpd)
	base := []byte(t.base())
	mpd = replaceMiddle(location, mpd, t.anywhere) // these two go by the MPD's own URL
	mpd = replaceMiddle(xlink, mpd, t.anywhere)
	mpd = replaceMiddle(baseURL, mpd, t.absolute)
	mpd = replaceMiddle(urlAttribute, mpd, t.absolute)
	period := firstPeriod.FindSubmatchIndex(mpd)
	if period == nil {
		return mpd
	}
	head, periods := mpd[:period[0]], mpd[period[0]:]
	switch {
	case !bytes.Contains(head, []byte("BaseURL")):
		var prefix []byte
		if period[2] >= 0 {
			prefix = mpd[period[2]:period[3]]
		}
		head = fmt.Appendf(bytes.Clone(head), "<%sBaseURL>%s</%[1]sBaseURL>", prefix, base)
	case string(base) != "./":
		head = replaceMiddle(baseURL, head, func(ref string) string {
			if isRelative(ref) && !hasToken(ref) {
				return string(base) + ref
			}
			return ref
		})
	}
	return append(bytes.Clone(head), periods...)
}

// climb is how many folders the URLs that an expression finds climb at most.
func climb(re *regexp.Regexp, b []byte) (most int) {
	for _, m := range re.FindAllSubmatch(b, -1) {
		down := 0
		for folder := range strings.SplitSeq(string(m[2]), "/") {
			switch folder {
			case "..":
				down--
				most = max(most, -down)
			case ".":
			default:
				down++
			}
		}
	}
	return most
}

// base is the manifest's folder with the token so many folders up from its own
// place as URLs need that climb.
func (t tokener) base() string {
	at := slices.IndexFunc(t.folders, isToken)
	below := t.folders[at+1:]
	up := min(t.climb-len(below), at)
	if up <= 0 {
		return "./"
	}
	way := append(slices.Clone(t.folders[at-up:at]), below...)
	base := strings.Repeat("../", len(below)+1+up) + t.token + strings.Join(way, "/") + "/"
	return strings.ReplaceAll(base, "&", "&amp;")
}

// replaceMiddle replaces the second of the expression's three groups.
func replaceMiddle(re *regexp.Regexp, b []byte, replace func(string) string) []byte {
	return re.ReplaceAllFunc(b, func(match []byte) []byte {
		m := re.FindSubmatch(match)
		return []byte(string(m[1]) + replace(string(m[2])) + string(m[3]))
	})
}

func isRelative(ref string) bool {
	u, err := url.Parse(ref)
	return err == nil && u.Scheme == "" && u.Host == "" && !strings.HasPrefix(u.Path, "/")
}

// anywhere puts the token into any URL that would lose it.
func (t tokener) anywhere(ref string) string {
	if !isRelative(ref) || hasToken(ref) {
		return t.absolute(ref)
	}
	if n := t.climbedOver(ref); n > 0 {
		return t.put(strings.Repeat("../", n)+ref, 0)
	}
	return ref
}

// climbedOver is how many tokens a relative URL leaves behind on its way up.
func (t tokener) climbedOver(ref string) (tokens int) {
	at, down := len(t.folders), 0
	for folder := range strings.SplitSeq(ref[:pathEnd(ref)], "/") {
		switch {
		case folder == ".":
		case folder != "..":
			down++
		case down > 0:
			down--
		default:
			for at--; at >= 0 && isToken(t.folders[at]); at-- {
				tokens++
			}
		}
	}
	return tokens
}

// absolute puts the token into an absolute URL, if it is the gate's.
func (t tokener) absolute(ref string) string {
	u, err := url.Parse(ref)
	if err != nil || !strings.HasPrefix(u.Path, "/") || u.Host != "" && !strings.EqualFold(u.Host, t.host) {
		return ref
	}
	if u.Scheme != "" && u.Scheme != "http" && u.Scheme != "https" {
		return ref
	}
	isFolder := strings.HasSuffix(u.Path, "/")
	switch {
	case hasToken(ref), !isFolder && t.kinds.Of(u.Path) == Other:
		return ref
	case isFolder: // a BaseURL, which more is to come behind
		return t.put(ref, min(t.climb, strings.Count(u.EscapedPath(), "/")-1))
	}
	return t.put(ref, 0)
}

// put puts the token in front of the file name, as TokenLocation does, or so
// many folders further up.
func (t tokener) put(ref string, up int) string {
	at := strings.LastIndexByte(ref[:pathEnd(ref)], '/')
	for range up {
		at = strings.LastIndexByte(ref[:at], '/')
	}
	return ref[:at+1] + t.token + ref[at+1:]
}

func hasToken(ref string) bool {
	_, _, found := CutToken("/" + ref[:pathEnd(ref)])
	return found
}

// pathEnd is where a URL's query or fragment begins.
func pathEnd(ref string) int {
	if i := strings.IndexAny(ref, "?#"); i >= 0 {
		return i
	}
	return len(ref)
}
