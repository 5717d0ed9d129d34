package playback

import (
	"net/http"

	"github.com/dunglas/httpsfv"

	"github.com/streamguard/streamguard/guard"
)

// ExplicitID is the guard id that a request carries beside its path: the guard
// query parameter or the X-Guard-Id header. What is not a UUID is as if absent.
func ExplicitID(r *http.Request) (guard.ID, bool) {
	for _, s := range []string{queryValue(r, "guard"), r.Header.Get("X-Guard-Id")} {
		if s == "" {
			continue
		}
		if id, err := guard.ParseID(s); err == nil {
			return id, true
		}
	}
	return guard.ID{}, false
}

// SessionID is what AVPlayer says by itself: the X-Playback-Session-Id header.
func SessionID(r *http.Request) string { return r.Header.Get("X-Playback-Session-Id") }

// CMCD is what a request says of its session in Common Media Client Data
// (CTA-5004, version 1 and 2).
type CMCD struct {
	SessionID string // sid: one playback
	ContentID string // cid: what it plays
}

const (
	maxCMCD = 4 << 10 // bytes; the keys that are defined fit in a quarter of it
	maxSID  = 64      // characters, says the specification, of sid
	maxCID  = 128     // and version 2 of cid
)

// ReadCMCD reads the CMCD query parameter, or else the CMCD-Session header.
// Broken data is as if absent: a viewer is not to blame for it.
func ReadCMCD(r *http.Request) CMCD {
	if query := queryValue(r, "CMCD"); query != "" {
		return parseCMCD([]string{query})
	}
	return parseCMCD(r.Header["Cmcd-Session"])
}

func parseCMCD(values []string) (c CMCD) {
	var size int
	for _, v := range values {
		size += len(v)
	}
	if size == 0 || size > maxCMCD {
		return CMCD{}
	}
	dict, err := httpsfv.UnmarshalDictionary(values)
	if err != nil {
		return CMCD{}
	}
	return CMCD{SessionID: text(dict, "sid", maxSID), ContentID: text(dict, "cid", maxCID)}
}

// text is a string member of the dictionary, or "" where it is none or too long.
func text(dict *httpsfv.Dictionary, key string, limit int) string {
	member, ok := dict.Get(key)
	if !ok {
		return ""
	}
	item, ok := member.(httpsfv.Item)
	if !ok {
		return ""
	}
	s, ok := item.Value.(string)
	if !ok || len(s) > limit {
		return ""
	}
	return s
}

// queryValue is r.URL.Query().Get(key) for requests that mostly have no query.
func queryValue(r *http.Request, key string) string {
	if r.URL.RawQuery == "" {
		return ""
	}
	return r.URL.Query().Get(key)
}
