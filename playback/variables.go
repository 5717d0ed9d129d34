package playback

import (
	"net/url"
	"regexp"
	"strings"
)

// variables are what a playlist defines with EXT-X-DEFINE, by their names. One
// that it imports is not known: its value is in another playlist.
type variables map[string]string

// maxVariable is how long a value, or a URL with values in it, is read. What
// would be longer stays as it is: variables in the values of others can double
// with each line.
const maxVariable = 8 << 10

var (
	hlsDefine   = regexp.MustCompile(`[:,](NAME|VALUE|QUERYPARAM)="([^"]*)"`)
	hlsValue    = regexp.MustCompile(`[:,](VALUE)="([^"]*)`)
	hlsVariable = regexp.MustCompile(`\{\$([A-Za-z0-9_-]+)\}`)
)

// define reads a line EXT-X-DEFINE of a playlist that was asked for with a query.
func (v variables) define(line, query string) {
	var name, value string
	for _, attribute := range hlsDefine.FindAllStringSubmatch(line, 3) {
		switch attribute[1] {
		case "NAME":
			name = attribute[2]
		case "VALUE":
			value = v.resolve(attribute[2])
		case "QUERYPARAM":
			values, _ := url.ParseQuery(query) // what cannot be read is not there
			if values.Has(attribute[2]) {
				name, value = attribute[2], values.Get(attribute[2])
			}
		}
	}
	if name != "" && len(value) <= maxVariable {
		v[name] = value
	}
}

// resolve puts the values into a URL for the variables that are known.
func (v variables) resolve(ref string) string {
	if len(v) == 0 || len(ref) > maxVariable || !strings.Contains(ref, "{$") {
		return ref
	}
	var resolved strings.Builder
	rest := ref
	for m := hlsVariable.FindStringSubmatchIndex(rest); m != nil; m = hlsVariable.FindStringSubmatchIndex(rest) {
		value, known := v[rest[m[2]:m[3]]]
		if !known {
			value = rest[m[0]:m[1]]
		}
		resolved.WriteString(rest[:m[0]])
		resolved.WriteString(value)
		if rest = rest[m[1]:]; resolved.Len() > maxVariable {
			return ref
		}
	}
	resolved.WriteString(rest)
	return resolved.String()
}

// variable puts the token into the value of a variable that is the beginning of
// absolute URLs of the gate's, so that playlists that import it carry the token
// as well. It stands between folders, whatever the URLs go on with, and never in
// front of the first, which a proxy may go by.
func (t tokener) variable(value string) string {
	path, here := t.here(value)
	if here && strings.Contains(value, "://") && strings.Count(path, "/") > 1 && pathEnd(value) == len(value) {
		return t.put(value, 0)
	}
	return value
}
