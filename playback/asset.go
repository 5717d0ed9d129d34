package playback

import (
	"bytes"
	"encoding/json"
	"io"
	"path"
	"regexp"

	"github.com/streamguard/streamguard/guard"
)

// AddTokenToAssets writes a path token into an asset list, which an interstitial
// of HLS names as its X-ASSET-LIST (RFC 8216bis, appendix D): JSON such as
// {"ASSETS": [{"URI": "ad.m3u8", "DURATION": 15}]}. Into each URI it is written as
// AddToken would; all else stays as it is, to the byte. The answer has the paths of
// those that are here, MaxAssets at most; it is false where this is no asset list,
// or where more than MaxManifest bytes would come of it.
func (k Kinds) AddTokenToAssets(list []byte, at Place, id guard.ID) (_ []byte, paths []string, ok bool) {
	l := assets{tokener: k.under(at, id), text: list, read: json.NewDecoder(bytes.NewReader(list))}
	found := false
	ok = l.object(func(key json.Token) bool {
		if key != "ASSETS" {
			return l.value() != nil
		}
		found = true
		return l.array(func() bool { return l.object(l.asset) })
	})
	if _, err := l.read.Token(); !ok || !found || err != io.EOF {
		return nil, nil, false
	}
	edited := append(l.edited, list[l.copied:]...)
	return edited, l.paths, len(edited) <= MaxManifest
}

// MaxAssets is how many interstitials of one playlist or list are known as such.
const MaxAssets = 100

// Assets are the paths of the interstitials here that a playlist of HLS names by
// X-ASSET-URI, MaxAssets at most.
func (k Kinds) Assets(playlist []byte, at Place) (paths []string) {
	if !bytes.Contains(playlist, []byte("X-ASSET-URI")) {
		return nil
	}
	t, known := k.tokener(at), make(variables)
	for line := range bytes.Lines(playlist) {
		if bytes.HasPrefix(line, []byte("#EXT-X-DEFINE:")) {
			known.define(string(line), at.Query)
		} else if m := hlsAsset.FindSubmatch(line); m != nil {
			paths = t.addAsset(paths, known.resolve(string(m[1])))
		}
	}
	return paths
}

var hlsAsset = regexp.MustCompile(`^#EXT-X-DATERANGE:(?:.*,)?\s*X-ASSET-URI="([^"]*)"`)

// addAsset adds the path of an interstitial, if it is here.
func (t tokener) addAsset(paths []string, ref string) []string {
	at := t.follow(t.look().home, ref)
	if at.host != "" || len(paths) == MaxAssets {
		return paths
	}
	return append(paths, path.Clean(at.plain()))
}

// assets is an asset list as it is read.
type assets struct {
	tokener
	text   []byte
	read   *json.Decoder
	edited []byte
	copied int // so much of the text is in edited
	paths  []string
}

// asset reads a member of an asset, and puts the token into its URI.
func (l *assets) asset(key json.Token) bool {
	raw := l.value()
	var uri string
	if key != "URI" || json.Unmarshal(raw, &uri) != nil {
		return raw != nil
	}
	l.paths = l.addAsset(l.paths, uri)
	if led := l.interstitial(uri); led != uri {
		end := int(l.read.InputOffset())
		l.edited = append(l.edited, l.text[l.copied:end-len(raw)]...)
		l.edited = append(l.edited, quote(led)...)
		l.copied = end
	}
	return len(l.edited) <= MaxManifest
}

// object reads an object, with a function that reads the value of a key.
func (l *assets) object(member func(key json.Token) bool) bool {
	return l.within('{', '}', func() bool {
		key, err := l.read.Token()
		return err == nil && member(key)
	})
}

func (l *assets) array(element func() bool) bool { return l.within('[', ']', element) }

func (l *assets) within(begin, end json.Delim, each func() bool) bool {
	if token, err := l.read.Token(); err != nil || token != begin {
		return false
	}
	for l.read.More() {
		if !each() {
			return false
		}
	}
	token, err := l.read.Token()
	return err == nil && token == end
}

// value reads any value; nil stands for none.
func (l *assets) value() (raw json.RawMessage) {
	if l.read.Decode(&raw) != nil {
		return nil
	}
	return raw
}

// quote writes a string of JSON.
func quote(s string) []byte {
	var b bytes.Buffer
	to := json.NewEncoder(&b)
	to.SetEscapeHTML(false)
	_ = to.Encode(s) // a string always can be
	return bytes.TrimSpace(b.Bytes())
}
