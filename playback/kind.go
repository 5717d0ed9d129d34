// Package playback reads a request the way a player meant it: is it part of a
// playback, of which stream, and by which player. Its functions are pure; what
// a request says about itself is a claim, never a proof.
package playback

import (
	"fmt"
	"path"
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
	".ts", ".m4s", ".mp4", ".m4v", ".m4a", ".cmfv", ".cmfa", ".cmft",
	".aac", ".ac3", ".ec3", ".mp3", ".vtt", ".webvtt",
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

// Of tells the kind of a path. A trailing slash or path parameter
// (/seg.ts;v=1) changes nothing: some origins ignore them.
func (k Kinds) Of(p string) Kind {
	p = strings.TrimRight(p, "/")
	if strings.IndexByte(p, ';') >= 0 {
		p = p[strings.LastIndexByte(p, '/')+1:]
		p, _, _ = strings.Cut(p, ";")
	}
	ext := path.Ext(p)
	if kind, ok := k[ext]; ok {
		return kind
	}
	return k[strings.ToLower(ext)]
}
