package lease

import (
	"encoding/binary"
	"sync/atomic"

	"github.com/streamguard/streamguard/guard"
)

// endings says when guards have ended, however many: the last of those whose
// ids agree in two bytes stands for all of them. If another guard
// with the same two bytes has ended, the store is asked once too often.
type endings [1 << 16]atomic.Uint32

// of is the moment of an id's last ending.
func (e *endings) of(id guard.ID) *atomic.Uint32 { return &e[binary.BigEndian.Uint16(id[14:])] }

// since reports whether a guard may have ended between a moment and now. What
// was half of all moments ago would seem to be ahead.
func (e *endings) since(id guard.ID, at, now moment) bool {
	ended := moment(e.of(id).Load())
	return ended.since(at) >= 0 && now.since(ended) >= 0
}
