// Package playback reads a request the way a player meant it: is it part of a
// playback, of which stream, and by which player. Its functions are pure; what
// a request says about itself is a claim, never a proof.
package playback

import (
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
)

// Kind tells whether a request is part of a playback.
type Kind uint8

const (
	Other    Kind = iota // passes untouched
	Manifest             // HLS playlist or DASH manifest
	Media                // segment, initialization, audio, text
)

var kindNames = []string{"other", "manifest", "media"}

func (k Kind) String() string { return kindNames[k] }

// ManifestExtensions and MediaExtensions are what Manifest and Media mean by default.
var (
	ManifestExtensions = []string{".m3u8", ".mpd", ".m3u"}
	MediaExtensions    = []string{
		".ts", ".m4s", ".mp4", ".m4v", ".m4a", ".m4f", ".m4i", ".dash", ".cmfv", ".cmfa", ".cmft",
		".webm", ".aac", ".ac3", ".ec3", ".mp3", ".vtt", ".webvtt",
		".mkv", ".mka", ".avi", ".flv", ".mov", ".wmv", ".mpg", ".mpeg", ".m2ts", ".mts", ".ogv",
		".ogg", ".oga", ".opus", ".weba", ".flac",
	}
)

// byName tells the kind of a clean path in lower case by the names that servers
// give what has no extension: Smooth Streaming's and Azure's, and those of
// Emby's and Jellyfin's libraries.
func byName(p string) (kind Kind, known bool) {
	slash := strings.LastIndexByte(p, '/')
	dir, name := p[:max(slash, 0)], p[slash+1:]
	switch {
	case strings.HasPrefix(name, "manifest("), name == "manifest" && smooth(path.Ext(dir)):
		return Manifest, true
	case strings.HasPrefix(name, "fragments("):
		return Media, true
	case name == "stream", name == "universal":
		if library := path.Base(path.Dir(dir)); library == "videos" || library == "audio" {
			return Media, true
		}
	}
	return Other, false
}

// smooth reports whether a folder of this extension is a presentation of Smooth
// Streaming: an origin's own, or a file or list that Wowza makes one of.
func smooth(ext string) bool {
	switch ext {
	case ".ism", ".isml", ".smil", ".mp4", ".stream":
		return true
	}
	return false
}

// KindRule says that paths are of a kind: "manifest", "media" or "other". A
// path is a file extension (".ts") or a pattern as Caddy's path matcher has it.
type KindRule struct {
	Kind  string
	Paths []string
}

// Kinds tells the kind of a path.
type Kinds struct {
	extensions map[string]Kind // in lower case
	patterns   []pattern       // in place of the extensions, all rules in their order; nil if these are extensions only
}

type pattern struct {
	text string // in lower case
	kind Kind
}

// NewKinds returns the defaults with what the rules say in addition. Of all
// rules that fit a path the last decides.
func NewKinds(rules []KindRule) (Kinds, error) {
	k := Kinds{extensions: make(map[string]Kind)}
	for _, ext := range ManifestExtensions {
		k.extensions[ext] = Manifest
	}
	for _, ext := range MediaExtensions {
		k.extensions[ext] = Media
	}
	var all []pattern
	given := make(map[string]string)
	for _, r := range rules {
		i := slices.Index(kindNames, r.Kind)
		if i < 0 {
			return Kinds{}, fmt.Errorf("%q is not one of %s", r.Kind, strings.Join(kindNames, ", "))
		}
		if len(r.Paths) == 0 {
			return Kinds{}, fmt.Errorf("%s comes without an extension or a path pattern", r.Kind)
		}
		for _, text := range r.Paths {
			if err := checkPattern(text); err != nil {
				return Kinds{}, err
			}
			text = strings.ToLower(text)
			if before := given[text]; before != "" && before != r.Kind {
				return Kinds{}, fmt.Errorf("%q is given as %s and as %s", text, before, r.Kind)
			}
			given[text] = r.Kind
			all = append(all, pattern{text, Kind(i)})
		}
	}
	if slices.ContainsFunc(all, func(p pattern) bool { return p.text[0] != '.' }) {
		k.patterns = all
		return k, nil
	}
	for _, p := range all {
		k.extensions[p.text] = p.kind
	}
	return k, nil
}

func checkPattern(text string) error {
	switch {
	case len(text) > 1 && text[0] == '.' && !strings.ContainsAny(text[1:], "./*"):
		return nil
	case text == "" || text[0] != '/' && text[0] != '*':
		return fmt.Errorf("%q is neither a file extension like .ts nor a path pattern like /live/*/seg", text)
	case strings.ContainsAny(text, "?#"):
		return fmt.Errorf("%q: a query is no part of a path", text)
	case strings.Contains(text, "%"):
		return fmt.Errorf("%q: a path is compared as it reads when its %%-escapes are resolved", text)
	}
	if _, err := path.Match(text, ""); err != nil {
		return fmt.Errorf("%q: %w", text, err)
	}
	return nil
}

// Extensions are those of a kind, in alphabetical order, as far as it goes by them.
func (k Kinds) Extensions(kind Kind) []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(k.extensions)), func(ext string) bool { return k.extensions[ext] != kind })
}

// Of tells the kind of a path, however an origin may read it: /7.ts/a/.. and
// /7.ts;v=1 are /7.ts to some, and what follows a NUL, or a ? that was escaped,
// is not always of the file's name. Patterns are compared with what remains.
//
// What is Other in one reading and not in another is not Other: an origin that
// reads it so would serve it uncounted.
func (k Kinds) Of(p string) Kind {
	kind, _ := k.find(p)
	if kind == Other && strings.IndexFunc(p, isOdd) >= 0 {
		for _, reading := range readings(p) {
			if kind, _ = k.find(reading); kind != Other {
				break
			}
		}
	}
	return kind
}

// isOdd reports whether origins differ about a character of a path.
func isOdd(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune(`;:\`, r) }

// readings are how origins may read an odd path: a backslash is a slash, control
// characters and spaces at the end of a folder are not there, the name ends at
// the first semicolon or, as a stream of NTFS, at two colons.
func readings(p string) []string {
	p = strings.Map(func(r rune) rune {
		switch {
		case r == '\\':
			return '/'
		case r < ' ' || r == 0x7f:
			return -1
		}
		return r
	}, p)
	folders := strings.Split(p, "/")
	for i := range folders {
		folders[i] = strings.TrimRight(folders[i], " ")
	}
	p = strings.Join(folders, "/")
	beforeParameters, _, _ := strings.Cut(p, ";")
	beforeStream, _, _ := strings.Cut(p, "::")
	return []string{p, beforeParameters, beforeStream}
}

// Knows reports whether anything says of what kind a path is. Of what is not
// known, Of says Other.
func (k Kinds) Knows(p string) bool {
	_, known := k.find(p)
	return known
}

func (k Kinds) find(p string) (kind Kind, known bool) {
	if kind, known = k.extensions[path.Ext(p)]; known && k.patterns == nil {
		return kind, known
	}
	if i := strings.IndexAny(p, "\x00?#"); i >= 0 {
		p = p[:i]
	}
	if strings.Contains(p, ";") {
		p = parameter.ReplaceAllString(p, "")
	}
	p = strings.ToLower(strings.TrimRight(path.Clean(p), `/. \`))
	if !known {
		if kind, known = k.extensions[path.Ext(p)]; !known {
			kind, known = byName(p)
		}
	}
	for _, pattern := range k.patterns {
		if pattern.fits(p) {
			kind, known = pattern.kind, true
		}
	}
	return kind, known
}

var parameter = regexp.MustCompile(`;[^/]*`)

// fits reports whether a clean path in lower case is what the pattern means, as
// Caddy's path matcher has it: one * at an end stands for anything, one at each
// end too, any other for all but a slash.
func (p pattern) fits(name string) bool {
	text := p.text
	if text[0] == '.' {
		return path.Ext(name) == text
	}
	switch inner, stars := strings.Trim(text, "*"), strings.Count(text, "*"); {
	case inner == "":
		return true
	case stars == 2 && text[0] == '*' && strings.HasSuffix(text, "*"):
		return strings.Contains(name, inner)
	case stars == 1 && text[0] == '*':
		return strings.HasSuffix(name, inner)
	case stars == 1 && strings.HasSuffix(text, "*"):
		return strings.HasPrefix(name, inner) || strings.HasPrefix(name+"/", inner)
	}
	fits, _ := path.Match(text, name)
	return fits
}
