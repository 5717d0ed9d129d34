package caddymodule

import (
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// sometimes says things once until the config changes.
type sometimes struct {
	said sync.Map // what has been said, by its name
	runs sync.Map // *atomic.Int64 by option: requests in a row for which it had no value
}

// once calls say, the first time that it is called with a name.
func (s *sometimes) once(name string, say func()) {
	if _, before := s.said.LoadOrStore(name, true); !before {
		say()
	}
}

// inARow is after how many requests an option that never has a value is a
// mistake rather than a matter of the players.
const inARow = 1000

// missing warns, once, of an option whose placeholder has had no value for so
// many requests in a row: what counts by it counts nothing.
func (s *sometimes) missing(logger *zap.Logger, option, text, value string) {
	if value != "" {
		if run, ok := s.runs.Load(option); ok {
			run.(*atomic.Int64).Store(0)
		}
		return
	}
	run, _ := s.runs.LoadOrStore(option, new(atomic.Int64))
	if run.(*atomic.Int64).Add(1) == inARow {
		s.once(option, func() {
			logger.Warn("an option has had no value for a thousand requests in a row: no limit counts by it; said once until the config changes",
				zap.String("option", option), zap.String("placeholder", text))
		})
	}
}

// aMinute is for what is said once a minute.
var aMinute everyMinute

type everyMinute struct{ last atomic.Int64 }

// over reports whether a minute has passed since it was last true.
func (e *everyMinute) over() bool {
	now, last := time.Now().Unix(), e.last.Load()
	return (last == 0 || now-last >= 60) && e.last.CompareAndSwap(last, now)
}
