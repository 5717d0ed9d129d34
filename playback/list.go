package playback

import (
	"bytes"
	"slices"
	"strings"
)

// leadOut writes the relative lines of a list of titles so that they lead where
// they would if the list had no token: what it names are playbacks of their own.
// It stops soon where too many bytes come of it.
func (t tokener) leadOut(list []byte) []byte {
	first := slices.IndexFunc(t.folders, isToken)
	if first < 0 {
		return list
	}
	below := slices.DeleteFunc(slices.Clone(t.folders[first:]), isToken)
	out := strings.Repeat("../", len(t.folders)-first) + strings.Join(append(below, ""), "/")
	edited := make([]byte, 0, len(list)*9/8)
	for line := range bytes.Lines(list) {
		url := bytes.TrimSpace(bytes.TrimPrefix(line, bom))
		if len(edited) > MaxManifest {
			break
		}
		if len(url) > 0 && url[0] != '#' && isRelative(string(url)) {
			before, after, _ := bytes.Cut(line, url)
			edited = append(append(edited, before...), out...)
			if url[0] == '?' { // the list itself, asked otherwise
				edited = append(edited, t.at.Path[strings.LastIndexByte(t.at.Path, '/')+1:]...)
			}
			edited = append(append(edited, url...), after...)
			continue
		}
		edited = append(edited, line...)
	}
	return edited
}
