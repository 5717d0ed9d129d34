package storage

import (
	"sync/atomic"

	"github.com/streamguard/streamguard/audience"
)

// LogUsers is how users stand in logs and events.
type LogUsers uint32

// From the most that is said to the least.
const (
	Plain LogUsers = iota // as they are
	Hash                  // the first 16 digits of their SHA-256
	Off                   // not at all
)

// Of is a user as it is logged; "" where it is not.
func (l LogUsers) Of(user string) string {
	switch l {
	case Plain:
		return user
	case Hash:
		return audience.Pseudonym(user)
	}
	return ""
}

// least is the least that any of a store's handlers says of users. What the
// store tells of is told in the name of all of them.
type least struct{ atomic.Uint32 }

func (l *least) join(with LogUsers) {
	for said := l.Load(); uint32(with) > said && !l.CompareAndSwap(said, uint32(with)); said = l.Load() {
	}
}

func (l *least) of(user string) string { return LogUsers(l.Load()).Of(user) }
