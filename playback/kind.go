// Package playback reads a request the way a player meant it: is it part of a
// playback, of which stream, and by which player. Its functions are pure; what
// a request says about itself is a claim, never a proof.
package playback

import (
	"fmt"
	"path"
	"regexp"
	"strings"
)

// Kind tells whether a request is part of a playback.
type Kind uint8

const (
	Other    Kind = iota // passes untouched
	Manifest             // HLS playlist or DASH manifest
	Media                // segment, initialization, audio, text
)

func (k Kind) String() string { return [...]string{"other", "manifest", "media"}[k] }

// MediaExtensions is what Media means by default.
var MediaExtensions = []string{
	".ts", ".m4s", ".mp4", ".m4v", ".m4a", ".m4f", ".m4i", ".dash", ".cmfv", ".cmfa", ".cmft",
	".webm", ".aac", ".ac3", ".ec3", ".mp3", ".vtt", ".webvtt",
}

// Kinds maps a lower-case file extension to its kind.
type Kinds map[string]Kind

// NewKinds returns the kinds for these media extensions (".ts"); none means
// MediaExtensions. The manifests are always .m3u8 and .mpd.
func NewKinds(media []string) (Kinds, error) {
	if len(media) == 0 {
		media = MediaExtensions
	}
	kinds := Kinds{".m3u8": Manifest, ".mpd": Manifest}
	for _, ext := range media {
		if len(ext) < 2 || ext[0] != '.' || strings.ContainsAny(ext[1:], "./") {
			return nil, fmt.Errorf("%q is not a file extension like .ts", ext)
		}
		if kinds[strings.ToLower(ext)] == Manifest {
			return nil, fmt.Errorf("%q is always a manifest", ext)
		}
		kinds[strings.ToLower(ext)] = Media
	}
	return kinds, nil
}

// Of tells the kind of a path, however an origin may read it: /7.ts/a/.. and
// /7.ts;v=1 are /7.ts to some, and what follows a NUL, or a ? that was escaped,
// is not always of the file's name.
func (k Kinds) Of(p string) Kind {
	if kind, ok := k[path.Ext(p)]; ok {
		return kind
	}
	if i := strings.IndexAny(p, "\x00?#"); i >= 0 {
		p = p[:i]
	}
	if strings.Contains(p, ";") {
		p = parameter.ReplaceAllString(p, "")
	}
	return k[strings.ToLower(path.Ext(strings.TrimRight(path.Clean(p), `/. \`)))]
}

var parameter = regexp.MustCompile(`;[^/]*`)
