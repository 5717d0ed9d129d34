package playback

import (
	"bytes"
	"net/http"
	"net/url"

	"github.com/dunglas/httpsfv"
)

// What a request says of its session in Common Media Client Data (CTA-5004,
// version 1 and 2), in the CMCD query parameter or else the CMCD-Session
// header. Broken data is as if absent: a viewer is not to blame for it.

// CMCDSessionID appends sid to dst: one playback.
func CMCDSessionID(dst []byte, r *http.Request) []byte { return cmcd(dst, r, "sid", maxSessionID) }

// CMCDContentID appends cid to dst: what it plays.
func CMCDContentID(dst []byte, r *http.Request) []byte { return cmcd(dst, r, "cid", maxContentID) }

// How long the two may be, as the specification has it.
const (
	maxSessionID = 64
	maxContentID = 128
)

// HasCMCD reports whether there is any, broken or not.
func HasCMCD(r *http.Request) bool {
	raw, _ := rawQueryValue(r.URL.RawQuery, "CMCD")
	return raw != "" || len(r.Header["Cmcd-Session"]) > 0
}

// maxCMCD is how many bytes are looked at; the keys that are defined fit in a
// quarter of it.
const maxCMCD = 4 << 10

func cmcd(dst []byte, r *http.Request, key string, limit int) []byte {
	if raw, ok := rawQueryValue(r.URL.RawQuery, "CMCD"); ok && raw != "" {
		if value, ok := scan(raw, key, true); ok {
			return appendWithin(dst, value, limit)
		}
		value, err := url.QueryUnescape(raw)
		if err != nil {
			return dst
		}
		return appendWithin(dst, parse([]string{value}, key), limit)
	}
	values := r.Header["Cmcd-Session"]
	if len(values) == 1 && len(values[0]) <= maxCMCD {
		if value, ok := scan(values[0], key, false); ok {
			return appendWithin(dst, value, limit)
		}
	}
	return appendWithin(dst, parse(values, key), limit)
}

func appendWithin(dst []byte, value string, limit int) []byte {
	if len(value) > limit {
		return dst
	}
	return append(dst, value...)
}

// parse is the string under a key of a dictionary (RFC 8941, section 3.2), or
// "" where there is none.
func parse(values []string, key string) string {
	var size int
	for _, v := range values {
		size += len(v)
	}
	if size == 0 || size > maxCMCD {
		return ""
	}
	dict, err := httpsfv.UnmarshalDictionary(values)
	if err != nil {
		return ""
	}
	return under[string](dict, key)
}

// under is the value of a key in a dictionary, zero where it is of another type.
func under[T any](dict *httpsfv.Dictionary, key string) T {
	member, _ := dict.Get(key)
	item, _ := member.(httpsfv.Item)
	v, _ := item.Value.(T)
	return v
}

// scan is parse for what players really send, escaped as in a query or not,
// without an allocation. It is not ok with anything else, be it valid or not.
func scan(s, key string, escaped bool) (value string, ok bool) {
	if len(s) > maxCMCD {
		return "", false
	}
	for i := 0; i < len(s); {
		start := i
		for i < len(s) && charset[s[i]]&inKey != 0 {
			i++
		}
		if i == start || charset[s[start]]&startsKey == 0 {
			return "", false
		}
		wanted := s[start:i] == key
		if wanted {
			value = "" // the last one counts
		}
		c, next := at(s, i, escaped)
		if c == '=' {
			c, next = at(s, next, escaped)
			var class uint8
			switch start = next; {
			case c == '"':
				class = inString
			case charset[c]&digit != 0:
				class = digit
			case charset[c]&startsToken != 0:
				class = inToken
			default:
				return "", false
			}
			n, plain := 1, true
			for i = next; ; i, n = next, n+1 {
				for ; i < len(s) && charset[s[i]]&(class|literal) == class|literal; n++ {
					i++
				}
				if c, next = at(s, i, escaped); charset[c]&class == 0 {
					break
				}
				plain = plain && next == i+1 && c == s[i]
			}
			switch {
			case class == digit && n > 15: // RFC 8941, section 3.3.1
				return "", false
			case class == inString:
				if c != '"' || wanted && !plain {
					return "", false
				}
				if wanted {
					value = s[start:i]
				}
				i = next
				c, next = at(s, i, escaped)
			}
		}
		if i < len(s) {
			if c != ',' || next == len(s) {
				return "", false
			}
			i = next
		}
	}
	return value, len(s) > 0
}

// at is the byte that stands there, 0 at the end, and where the next one is.
func at(s string, i int, escaped bool) (c byte, next int) {
	if i >= len(s) {
		return 0, i
	}
	if c = s[i]; !escaped || c != '%' && c != '+' {
		return c, i + 1
	}
	return unescape(s[i:], i)
}

func unescape(s string, i int) (c byte, next int) {
	if s[0] == '+' {
		return ' ', i + 1
	}
	if len(s) < 3 || unhex[s[1]]|unhex[s[2]] == 0xff {
		return 0, i // no byte of a dictionary
	}
	return unhex[s[1]]<<4 | unhex[s[2]], i + 3
}

// The characters of RFC 8941, section 3.
const (
	startsKey = 1 << iota
	inKey
	inString
	digit
	startsToken
	inToken
	literal // means itself in a query too
)

var charset = func() (set [256]uint8) {
	add := func(class uint8, chars string) {
		for i := range len(chars) {
			set[chars[i]] |= class
		}
	}
	const digits, lower, upper = "0123456789", "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	add(startsKey|inKey, lower+"*")
	add(inKey, digits+"_-.")
	add(digit, digits)
	add(startsToken|inToken, lower+upper+"*")
	add(inToken, digits+"!#$%&'+-.^_`|~:/")
	for c := byte(0x20); c < 0x7f; c++ {
		if c != '"' && c != '\\' {
			set[c] |= inString
		}
	}
	for c := range set {
		if c != '%' && c != '+' {
			set[c] |= literal
		}
	}
	return set
}()

// unhex is the value of a hexadecimal digit, 0xff of any other byte.
var unhex = func() (value [256]byte) {
	for c := range value {
		value[c] = 0xff
	}
	for i, c := range []byte("0123456789abcdef") {
		value[c], value[bytes.ToUpper([]byte{c})[0]] = byte(i), byte(i)
	}
	return value
}()
