package playback

import (
	"regexp"
	"slices"
	"strings"

	"github.com/streamguard/streamguard/guard"
)

// A path token is a path segment "~<guard id>". A player that was sent to
// /movie/~<id>/master.m3u8 repeats it in every URL that is relative to that.

// CutToken removes every path token from an escaped path and returns the first.
func CutToken(p string) (clean string, id guard.ID, found bool) {
	if !strings.Contains(p, "/~") && !strings.Contains(p, "/%7") {
		return p, guard.ID{}, false
	}
	segments := strings.Split(p, "/")
	kept := segments[:0]
	for _, s := range segments {
		if token, ok := parseToken(s); ok {
			if !found {
				id, found = token, true
			}
			continue
		}
		kept = append(kept, s)
	}
	return strings.Join(kept, "/"), id, found
}

func isToken(segment string) bool {
	_, ok := parseToken(segment)
	return ok
}

func parseToken(segment string) (guard.ID, bool) {
	if len(segment) > 3 && strings.EqualFold(segment[:3], "%7e") {
		segment = "~" + segment[3:] // needless, but some clients escape it
	}
	s, ok := strings.CutPrefix(segment, "~")
	if !ok {
		return guard.ID{}, false
	}
	id, err := guard.ParseID(s)
	return id, err == nil
}

// PlainLocation is where a request with a token is sent to go on without: a
// relative reference, too, to the same URL without what CutToken removes.
func PlainLocation(escapedPath, rawQuery string) string {
	return withoutTokens(escapedPath, rawQuery, 0)
}

// FirstTokenLocation is where a request with several tokens is sent, which only
// who wants a large answer makes up: the same URL with the first token alone.
// Of a request with one token or none it is "".
func FirstTokenLocation(escapedPath, rawQuery string) string {
	return withoutTokens(escapedPath, rawQuery, 1)
}

// withoutTokens refers to a URL without its tokens but the first few, or is ""
// if it has no more.
func withoutTokens(escapedPath, rawQuery string, first int) string {
	folders := strings.Split(escapedPath, "/")
	at := slices.IndexFunc(folders, func(folder string) bool {
		if isToken(folder) {
			first--
		}
		return first < 0
	})
	if at < 0 {
		return ""
	}
	below := folders[at+1:]
	clean, _, _ := CutToken("/" + strings.Join(below, "/"))
	location := strings.Repeat("../", len(below)) + strings.TrimPrefix(clean, "/")
	if location == "" {
		location = "./"
	}
	if rawQuery != "" {
		location += "?" + rawQuery
	}
	return location
}

// TokenLocation is where a manifest request without a token is sent: a relative
// reference (RFC 3986, section 4.2) to the same URL with the token in front of
// the file name. It holds whatever path prefix a proxy has cut off on the way.
func TokenLocation(escapedPath, rawQuery string, id guard.ID) string {
	location := "~" + id.String() + "/" + escapedPath[strings.LastIndexByte(escapedPath, '/')+1:]
	if rawQuery != "" {
		location += "?" + rawQuery
	}
	return location
}

// LocationUnder is where an answer to a request with a token sends its client, or
// says that it comes from: the URL of a Location or a Content-Location with the
// token in it, as AddToken writes it into a manifest, if it is one of a manifest
// or media here. Any other stays as it is.
func (k Kinds) LocationUnder(location string, at Place, id guard.ID) string {
	t := k.under(at, id)
	if t.follow(t.look().home, location).kind(k) == Other {
		return location
	}
	return t.anywhere(location)
}

// RefreshUnder is LocationUnder for the URL in a Refresh, which is written like
// "5; url=/v/x.m3u8" (HTML, section 4.2.5.3).
func (k Kinds) RefreshUnder(refresh string, at Place, id guard.ID) string {
	m := refreshURL.FindStringSubmatchIndex(refresh)
	if m == nil {
		return refresh
	}
	return refresh[:m[2]] + k.LocationUnder(refresh[m[2]:m[3]], at, id) + refresh[m[3]:]
}

var refreshURL = regexp.MustCompile(`^\s*[\d.]+\s*[;,]\s*(?:(?i:url)\s*=\s*)?["']?([^"'\s]+)`)
