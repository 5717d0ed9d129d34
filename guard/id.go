package guard

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
)

// ID names a guard: a UUID of version 8 (RFC 9562, section 5.8). Its first
// half is random, or a hash of the playback's key; its second half is a hash of
// the user, the device and the first half. Any node can therefore tell without
// asking whether an id that a request carries was made for the user and the
// device it comes from. That keeps honest clients apart; it is not a secret.
type ID [16]byte

// NewID makes an id for a playback that has no key of its own.
func NewID(user, device string) ID {
	var nonce [8]byte
	rand.Read(nonce[:])
	return bind(user, device, nonce)
}

// DeriveID makes the id of a playback from its key, the same on every node.
// Keys that collide cost only the user who made them up, like one key used twice.
func DeriveID[K string | []byte](user, device string, key K) ID {
	var nonce [8]byte
	binary.BigEndian.PutUint64(nonce[:], hash(key))
	return bind(user, device, nonce)
}

// hash is FNV-1a in steps of eight bytes, then of one.
func hash[K string | []byte](key K) uint64 {
	const offset, prime = 0xcbf29ce484222325, 0x100000001b3
	h := uint64(offset)
	for ; len(key) >= 8; key = key[8:] {
		_ = key[7]
		word := uint64(key[0]) | uint64(key[1])<<8 | uint64(key[2])<<16 | uint64(key[3])<<24 |
			uint64(key[4])<<32 | uint64(key[5])<<40 | uint64(key[6])<<48 | uint64(key[7])<<56
		h = (h ^ word) * prime
		h ^= h >> 32
	}
	for i := range len(key) {
		h = (h ^ uint64(key[i])) * prime
	}
	return h
}

// Of reports whether the id was made for this user and device.
func (id ID) Of(user, device string) bool {
	return id == bind(user, device, [8]byte(id[:8]))
}

func bind(user, device string, nonce [8]byte) (id ID) {
	copy(id[:], nonce[:])
	id[6] = id[6]&0x0f | 0x80 // version 8
	// The user's length keeps the two names apart.
	buf := make([]byte, 0, 128)
	buf = append(buf, id[:8]...)
	buf = binary.AppendUvarint(buf, uint64(len(user)))
	buf = append(buf, user...)
	buf = append(buf, device...)
	sum := sha256.Sum256(buf)
	copy(id[8:], sum[:8])
	id[8] = id[8]&0x3f | 0x80 // variant 10
	return id
}

// String returns the usual form, xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx.
func (id ID) String() string {
	var b [36]byte
	hex.Encode(b[0:8], id[0:4])
	hex.Encode(b[9:13], id[4:6])
	hex.Encode(b[14:18], id[6:8])
	hex.Encode(b[19:23], id[8:10])
	hex.Encode(b[24:36], id[10:16])
	b[8], b[13], b[18], b[23] = '-', '-', '-', '-'
	return string(b[:])
}

var errID = errors.New("not a UUID (xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx)")

// ParseID reads the usual form of a UUID of any version, in either case.
func ParseID(s string) (id ID, err error) {
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return ID{}, errID
	}
	digits := s[0:8] + s[9:13] + s[14:18] + s[19:23] + s[24:36]
	if _, err := hex.Decode(id[:], []byte(digits)); err != nil {
		return ID{}, errID
	}
	return id, nil
}
