package playback

import (
	"bytes"
	"net/url"
	"regexp"
	"strings"

	"github.com/streamguard/streamguard/guard"
)

// AddToken writes a path token into the URLs of a manifest that would lose it:
// absolute ones of the same host, of manifests and media. A relative URL
// carries it by itself. host is as in the manifest's request; path tells HLS
// from DASH.
func (k Kinds) AddToken(manifest []byte, path, host string, id guard.ID) []byte {
	tokened := func(ref string) string { return k.addToken(ref, host, id) }
	if strings.HasSuffix(strings.ToLower(path), ".mpd") {
		return addTokenDASH(manifest, tokened)
	}
	return addTokenHLS(manifest, tokened)
}

var uriAttribute = regexp.MustCompile(`(\bURI=")([^"]*)(")`)

// addTokenHLS finds the URLs of a playlist (RFC 8216, section 4.1): lines of
// their own, and URI attributes.
func addTokenHLS(playlist []byte, tokened func(string) string) []byte {
	lines := bytes.Split(playlist, []byte("\n"))
	for i, line := range lines {
		switch url := bytes.TrimSpace(line); {
		case len(url) == 0:
		case url[0] == '#':
			lines[i] = replaceMiddle(uriAttribute, line, tokened)
		default:
			lines[i] = bytes.Replace(line, url, []byte(tokened(string(url))), 1)
		}
	}
	return bytes.Join(lines, []byte("\n"))
}

var (
	urlElement   = regexp.MustCompile(`(<(?:\w+:)?(?:BaseURL|Location)(?:\s[^>]*)?>\s*)([^<\s]+)(\s*<)`)
	urlAttribute = regexp.MustCompile(`(\s(?:media|initialization|sourceURL|index|xlink:href)=")([^"]*)(")`)
	firstPeriod  = regexp.MustCompile(`<(\w+:)?Period[\s/>]`)
)

// addTokenDASH finds the URLs of an MPD (ISO/IEC 23009-1, section 5.6). One
// without a BaseURL of its own is given its own folder as such: FFmpeg resolves
// relative URLs against what it asked for, not where it was sent.
func addTokenDASH(mpd []byte, tokened func(string) string) []byte {
	mpd = replaceMiddle(urlElement, mpd, tokened)
	mpd = replaceMiddle(urlAttribute, mpd, tokened)
	period := firstPeriod.FindSubmatchIndex(mpd)
	if period == nil || bytes.Contains(mpd[:period[0]], []byte("BaseURL")) {
		return mpd
	}
	var prefix []byte
	if period[2] >= 0 {
		prefix = mpd[period[2]:period[3]]
	}
	out := make([]byte, 0, len(mpd)+64)
	out = append(out, mpd[:period[0]]...)
	out = append(append(append(out, '<'), prefix...), "BaseURL>./</"...)
	out = append(append(out, prefix...), "BaseURL>"...)
	return append(out, mpd[period[0]:]...)
}

// replaceMiddle replaces the second of the expression's three groups.
func replaceMiddle(re *regexp.Regexp, b []byte, replace func(string) string) []byte {
	return re.ReplaceAllFunc(b, func(match []byte) []byte {
		m := re.FindSubmatch(match)
		return []byte(string(m[1]) + replace(string(m[2])) + string(m[3]))
	})
}

// addToken puts the token in front of the file name, as TokenLocation does.
func (k Kinds) addToken(ref, host string, id guard.ID) string {
	u, err := url.Parse(ref)
	if err != nil || !strings.HasPrefix(u.Path, "/") || u.Host != "" && !strings.EqualFold(u.Host, host) {
		return ref
	}
	if u.Scheme != "" && u.Scheme != "http" && u.Scheme != "https" {
		return ref
	}
	if _, _, found := CutToken(u.EscapedPath()); found {
		return ref
	}
	// A folder is a BaseURL, which more is to come behind.
	if !strings.HasSuffix(u.Path, "/") && k.Of(u.Path) == Other {
		return ref
	}
	end := strings.IndexAny(ref, "?#")
	if end < 0 {
		end = len(ref)
	}
	file := strings.LastIndexByte(ref[:end], '/') + 1
	return ref[:file] + "~" + id.String() + "/" + ref[file:]
}
