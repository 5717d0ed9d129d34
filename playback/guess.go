package playback

import (
	"path"
	"regexp"
	"strings"
)

var (
	seemsManifest = regexp.MustCompile(`(?i)\.(m3u8?|mpd|ism[lc]?)([/.?;_-]|$)|(^|/)(master|playlist|chunklist|manifest|index-f\d)[^/.]*$`)
	seemsMedia    = regexp.MustCompile(`(?i)\.(ts|m4[sfva]|mp4|cmf[vat]|aac|webm)([/.?;_-]|$)|(^|[/_-])(seg|segment|chunk|frag|fragment|part)[_-]?\d+[^/]*$`)
)

// Guess says what a path that no Kind knows may be of, by its looks and by the type of
// its answer: "manifest", "media", or "" for nothing of the kind.
func Guess(of, contentType string) string {
	mediaType, _, _ := strings.Cut(contentType, ";")
	mediaType = strings.ToLower(strings.TrimSpace(mediaType))
	switch {
	case IsManifestType(mediaType):
		return "manifest"
	case strings.HasPrefix(mediaType, "video/") || mediaType == "audio/mp4" || mediaType == "audio/aac":
		return "media"
	case mediaType == "text/html" || mediaType == "text/css" || strings.HasSuffix(mediaType, "javascript") || strings.HasPrefix(mediaType, "image/"):
		return ""
	}
	switch strings.ToLower(path.Ext(of)) {
	case ".html", ".htm", ".js", ".mjs", ".css", ".json", ".webmanifest", ".png", ".jpg", ".jpeg", ".gif", ".svg", ".ico", ".webp", ".avif", ".txt", ".xml", ".map", ".woff", ".woff2", ".key", ".srt", ".pdf", ".zip":
		return ""
	}
	switch {
	case seemsManifest.MatchString(of):
		return "manifest"
	case seemsMedia.MatchString(of):
		return "media"
	}
	return ""
}

// IsManifestType reports whether a media type, in lower case, is that of an HLS
// playlist, a DASH manifest or one of Smooth Streaming.
func IsManifestType(mediaType string) bool {
	switch mediaType {
	case "application/vnd.apple.mpegurl", "application/x-mpegurl", "application/mpegurl", "audio/mpegurl", "audio/x-mpegurl",
		"application/dash+xml", "video/vnd.mpeg.dash.mpd", "application/vnd.ms-sstr+xml":
		return true
	}
	return false
}
