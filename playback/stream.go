package playback

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/streamguard/streamguard/guard"
)

// Dir names a stream by the first n directories of its path, for packagers
// that give each title a tree of its own: with 2, /vod/alien/1080p/7.m4s and
// /vod/alien/master.m3u8 are both "vod/alien".
//
// Where the path has fewer, the file's name tells whether the last of them is a
// title's own: it is if that name says no title, or the same one. So /alien/7.ts
// is "alien", and /hls/ch1-7.ts is "hls/ch1", named as by Name.
func Dir(path string, n int) string {
	path = strings.TrimLeft(path, "/")
	end := 0
	for range n {
		slash := strings.IndexByte(path[end:], '/')
		if slash < 0 {
			return flat(path, end)
		}
		end += slash + 1
	}
	return path[:end-1]
}

// flat names the stream of a file that lies in so much of its path.
func flat(path string, end int) string {
	name := Name(path)
	title, dir := name[min(end, len(name)):], path[:max(end-1, 0)]
	if titled(path[end:]) && title != dir[strings.LastIndexByte(dir, '/')+1:] {
		return name
	}
	return cmp.Or(dir, "/")
}

// Name names a stream by its file name without what packagers add to it, for
// titles that share a directory: /movie_720p-00012.ts and /movie.m3u8 are both
// "movie". The directory counts: /a/movie.m3u8 is "a/movie".
//
// The number at the end of a media file's name counts its segments. Any other
// number that stands alone is the title's: /channel_1-7.ts is "channel_1", as
// /channel_1.m3u8 is.
func Name(path string) string {
	path = strings.Trim(path, "/")
	file := strings.LastIndexByte(path, '/') + 1
	counted := false
	if dot := strings.LastIndexByte(path, '.'); dot > file {
		counted = !slices.ContainsFunc(ManifestExtensions, func(ext string) bool { return strings.EqualFold(ext, path[dot:]) })
		path = path[:dot]
	}
	for {
		i := strings.LastIndexAny(path, "-_.")
		if i <= file {
			return path
		}
		word := path[i+1:]
		switch {
		case added.MatchString(word):
		case counted && number.MatchString(word):
			counted = false
		default:
			return path
		}
		path = path[:i]
	}
}

// added are the words that packagers put behind a title: renditions, roles and
// languages. number may be one, too.
var (
	added = regexp.MustCompile(`(?i)^(|\d+p(\d+(kbps\d*)?)?|\d{3,}x\d{3,}|\d+k(bps)?|[avst]\d+|` +
		`(init|seg|segment|chunk|part|frag|stream|track|rep|media|index|master|manifest|playlist|adaptive|hls|dash|dashinit|cmaf)\d*|` +
		`video|audio|text|subs?|subtitles?|captions?|low|mid|hi|high|src|hd\d*|sd|uhd|4k|i|frame|iframes?|` +
		`avc\d?|h26[45]|hevc|av1|vp9|aac|ac3|ec3|opus|` +
		`eng?|ger|deu?|fre|fra?|spa|es|ita?|por|pt|jpn|ja|kor?|chi|zho?|rus?|nld?|dut|und)$`)
	number = regexp.MustCompile(`^\d+$`)
)

// titled reports whether a file's name has a word that no packager puts there
// by itself.
func titled(file string) bool {
	file = strings.TrimSuffix(file, path.Ext(file))
	if hashed.MatchString(file) {
		return false
	}
	for word := range strings.FieldsFuncSeq(file, func(c rune) bool { return strings.ContainsRune("-_.:", c) }) {
		if !added.MatchString(word) && !number.MatchString(word) && !alone.MatchString(word) {
			return true
		}
	}
	return false
}

// alone are words of packagers that have no title to put them behind: of
// FFmpeg, Apple, Wowza, Nimble, OvenMediaEngine and others. hashed are
// MediaMTX's segments, which begin with a number of the muxer.
var (
	alone = regexp.MustCompile(`(?i)^((main|live|file|filesequence|data|out|output|chunks|chunklist|rendition|variant|video|audio|subs?|text|level|v)\d*|[wb]\d+|` +
		`prog|all|mono|llhls|ts)$`)
	hashed = regexp.MustCompile(`^[0-9a-f]{12}_(main|(video|audio)\d+)_`)
)

// Match names a stream by what the expression finds in its path: its first
// group, or all of the match where it has none. No match gives "".
func Match(path string, re *regexp.Regexp) string {
	m := re.FindStringSubmatch(path)
	switch len(m) {
	case 0:
		return ""
	case 1:
		return m[0]
	default:
		return m[1]
	}
}

// Label makes any string fit for a stream or device of a guard: one that is too
// long keeps its start and ends in a hash.
func Label(s string) string {
	if len(s) <= guard.MaxLabel {
		return s
	}
	sum := sha256.Sum256([]byte(s))
	tail := "~" + hex.EncodeToString(sum[:16])
	return s[:guard.MaxLabel-len(tail)] + tail
}

// CheckUser says what is wrong with a user, if anything: it is 1 to
// guard.MaxUser bytes without control characters.
func CheckUser(user string) error {
	switch {
	case user == "":
		return fmt.Errorf("the user is empty")
	case len(user) > guard.MaxUser:
		return fmt.Errorf("the user has %d bytes, at most %d are allowed", len(user), guard.MaxUser)
	case hasControl(user):
		return fmt.Errorf("the user has control characters")
	}
	return nil
}

func hasControl(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c < ' ' || c == 0x7f:
			return true
		case c >= utf8.RuneSelf:
			return strings.ContainsFunc(s[i:], unicode.IsControl)
		}
	}
	return false
}
