// Package viewer makes up the requests of any number of viewers from a number
// each, so that none of them has to be kept anywhere.
package viewer

import "encoding/hex"

// Titles is how many titles there are to watch.
const Titles = 100

// PerUser is how many playbacks each user has.
const PerUser = 2

// AppendUser appends the user who runs playback n.
func AppendUser(b []byte, n uint64) []byte {
	user := mix(n / PerUser)
	return appendHex(append(b, "user-"...), user, 6)
}

// AppendPath appends the path of a segment of what playback n plays:
// /4k/title-07/seg.m4s.
func AppendPath(b []byte, dir string, n uint64) []byte {
	b = append(append(append(b, '/'), dir...), '/')
	b = AppendTitle(b, mix(n)%Titles)
	return append(b, "/seg.m4s"...)
}

// AppendTitle appends the name of title n.
func AppendTitle(b []byte, n uint64) []byte {
	return append(b, 't', 'i', 't', 'l', 'e', '-', byte('0'+n/10), byte('0'+n%10))
}

// AppendQuery appends the CMCD of playback n, nothing but its session id.
func AppendQuery(b []byte, n uint64) []byte {
	return append(AppendSID(append(b, "CMCD=sid%3D%22"...), n), "%22"...)
}

// AppendFullQuery appends the CMCD that hls.js sends with a segment.
func AppendFullQuery(b []byte, n uint64) []byte {
	b = append(b, "CMCD=bl%3D21300%2Cbr%3D3200%2Cd%3D4004%2Cmtp%3D25400%2Cot%3Dv%2Csf%3Dh%2Csid%3D%22"...)
	return append(AppendSID(b, n), "%22%2Cst%3Dv%2Ctb%3D6000"...)
}

// AppendSID appends the UUID of playback n.
func AppendSID(b []byte, n uint64) []byte {
	high, low := mix(n), mix(^n)
	b = append(appendHex(b, high>>32, 4), '-')
	b = append(appendHex(b, high>>16, 2), '-')
	b = append(appendHex(b, high, 2), '-')
	b = append(appendHex(b, low>>48, 2), '-')
	return appendHex(b, low, 6)
}

// appendHex appends the lowest bytes of v in hexadecimal.
func appendHex(b []byte, v uint64, bytes int) []byte {
	var raw [8]byte
	for i := range bytes {
		raw[bytes-1-i] = byte(v >> (8 * i))
	}
	return hex.AppendEncode(b, raw[:bytes])
}

// mix is the finalizer of splitmix64: a permutation of the numbers, so that
// playbacks next to each other are nothing alike.
func mix(n uint64) uint64 {
	n += 0x9e3779b97f4a7c15
	n = (n ^ n>>30) * 0xbf58476d1ce4e5b9
	n = (n ^ n>>27) * 0x94d049bb133111eb
	return n ^ n>>31
}
