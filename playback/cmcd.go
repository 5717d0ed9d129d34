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
		var buf [512]byte
		if n, ok := unescape(buf[:], raw); ok {
			if value, ok := scan(buf[:n], key); ok {
				return appendWithin(dst, value, limit)
			}
		}
		value, err := url.QueryUnescape(raw)
		if err != nil {
			return dst
		}
		return appendWithin(dst, parse([]string{value}, key), limit)
	}
	values := r.Header["Cmcd-Session"]
	if len(values) == 1 && len(values[0]) <= maxCMCD {
		if value, ok := scan(values[0], key); ok {
			return appendWithin(dst, value, limit)
		}
	}
	return appendWithin(dst, parse(values, key), limit)
}

func appendWithin[T string | []byte](dst []byte, value T, limit int) []byte {
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

// scan is parse for what players really send, without an allocation. It is not
// ok with anything else, be it valid or not.
func scan[T string | []byte](b T, key string) (value T, ok bool) {
	var none T
	for i := 0; i < len(b); i++ {
		start := i
		for i < len(b) && charset[b[i]]&inKey != 0 {
			i++
		}
		if i == start || charset[b[start]]&startsKey == 0 {
			return none, false
		}
		wanted := string(b[start:i]) == key
		if wanted {
			value = none // the last one counts
		}
		if i < len(b) && b[i] == '=' {
			i++
			start = i
			switch {
			case i == len(b):
				return none, false
			case b[i] == '"':
				for i++; i < len(b) && charset[b[i]]&inString != 0; i++ {
				}
				if i == len(b) || b[i] != '"' {
					return none, false
				}
				if wanted {
					value = b[start+1 : i]
				}
				i++
			case charset[b[i]]&digit != 0:
				for i < len(b) && charset[b[i]]&digit != 0 {
					i++
				}
				if i-start > 15 { // RFC 8941, section 3.3.1
					return none, false
				}
			case charset[b[i]]&startsToken != 0:
				for i < len(b) && charset[b[i]]&inToken != 0 {
					i++
				}
			default:
				return none, false
			}
		}
		if i < len(b) && (b[i] != ',' || i == len(b)-1) {
			return none, false
		}
	}
	return value, len(b) > 0
}

// The characters of RFC 8941, section 3.
const (
	startsKey = 1 << iota
	inKey
	inString
	digit
	startsToken
	inToken
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

// unescape writes the query value that s escapes to dst, if it has room, and
// returns its length.
func unescape(dst []byte, s string) (n int, ok bool) {
	for i := 0; i < len(s); i++ {
		if n == len(dst) {
			return 0, false
		}
		c := s[i]
		switch c {
		case '+':
			c = ' '
		case '%':
			if i+2 >= len(s) {
				return 0, false
			}
			hi, lo := unhex[s[i+1]], unhex[s[i+2]]
			if hi|lo == 0xff {
				return 0, false
			}
			c = hi<<4 | lo
			i += 2
		}
		dst[n] = c
		n++
	}
	return n, true
}
