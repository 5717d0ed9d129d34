package playback

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/streamguard/streamguard/guard"
)

// Dir names a stream by the first n directories of its path, for packagers
// that give each title a tree of its own: with 2, /vod/alien/1080p/7.m4s and
// /vod/alien/master.m3u8 are both "vod/alien". Where the path has fewer, all of
// them count; a file in the root is named as by Name.
func Dir(path string, n int) string {
	path = strings.TrimLeft(path, "/")
	end := 0
	for range n {
		slash := strings.IndexByte(path[end:], '/')
		if slash < 0 {
			break
		}
		end += slash + 1
	}
	if end == 0 {
		return Name(path)
	}
	return path[:end-1]
}

// Name names a stream by its file name without what packagers add to it, for
// titles that share a directory: /movie_720p-00012.ts and /movie.m3u8 are both
// "movie". The directory counts: /a/movie.m3u8 is "a/movie".
func Name(path string) string {
	path = strings.Trim(path, "/")
	slash := strings.LastIndexByte(path, '/') + 1
	dir, file := path[:slash], path[slash:]
	if dot := strings.LastIndexByte(file, '.'); dot > 0 {
		file = file[:dot]
	}
	for {
		i := strings.LastIndexAny(file, "-_.")
		if i <= 0 || !added.MatchString(file[i+1:]) {
			return dir + file
		}
		file = file[:i]
	}
}

// added are the words that packagers put behind a title: numbers, renditions,
// roles and languages.
var added = regexp.MustCompile(`(?i)^(\d*|\d+p(\d+(kbps\d*)?)?|\d+x\d+|\d+k(bps)?|[avst]\d+|` +
	`(init|seg|segment|chunk|part|frag|stream|track|rep|media|index|master|manifest|playlist|adaptive|hls|dash|dashinit|cmaf)\d*|` +
	`video|audio|text|subs?|subtitles?|captions?|low|mid|hi|high|src|hd\d*|sd|uhd|4k|i|frame|iframes?|` +
	`avc\d?|h26[45]|hevc|av1|vp9|aac|ac3|ec3|opus|` +
	`eng?|ger|deu?|fre|fra?|spa|es|ita?|por|pt|jpn|ja|kor?|chi|zho?|rus?|nld?|dut|und)$`)

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
