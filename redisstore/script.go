package redisstore

import (
	_ "embed"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/streamguard/streamguard/guard"
)

var (
	//go:embed value.lua
	valueLua string
	//go:embed ledger.lua
	ledgerLua string
	//go:embed room.lua
	roomLua string

	//go:embed acquire.lua
	acquireLua string
	//go:embed refresh.lua
	refreshLua string
	//go:embed finish.lua
	finishLua string
	//go:embed close.lua
	closeLua string
	//go:embed undo.lua
	undoLua string
	//go:embed list.lua
	listLua string
)

// scripts are one for each verb.
var scripts = struct{ acquire, refresh, release, revoke, close, undo, list *redis.Script }{
	acquire: script(acquireLua),
	refresh: script(refreshLua),
	release: script("local KIND = 'L'\n" + finishLua),
	revoke:  script("local KIND = 'R'\n" + finishLua),
	close:   script(closeLua),
	undo:    script(undoLua),
	list:    script(listLua),
}

// script puts a script together: guard's numbers, the user's value, and the verb, in
// two parts: nearly every call needs only the first, and has no time for the making
// of functions.
func script(verb string) *redis.Script {
	parts := strings.NewReplacer("--- ledger.lua and room.lua: ", ledgerLua+roomLua+"-- ", "--- ledger.lua: ", ledgerLua+"-- ")
	return redis.NewScript(constants + valueLua + parts.Replace(verb))
}

// constants gives guard's numbers the names that they have in Lua.
var constants = locals([]constant{
	{"PLAY", int64(guard.Play)},
	{"LOOK", int64(guard.Look)},
	{"RESUME", int64(guard.Resume)},

	{"ADMITTED", int64(guard.Admitted)},
	{"REFRESHED", int64(guard.Refreshed)},
	{"VACANT", int64(guard.Vacant)},
	{"RELEASED", int64(guard.Released)},
	{"REJECTED", int64(guard.Rejected)},
	{"REVOKED", int64(guard.Revoked)},
	{"ABSENT", int64(guard.Absent)},
	{"UNCOUNTED", int64(guard.Uncounted)},
	{"REPLACED", int64(guard.Replaced)},
	{"DOUBTED", int64(guard.Doubted)},

	{"REPLACE_DEVICE", int64(guard.ReplaceDevice)},
	{"REPLACE_OLDEST", int64(guard.ReplaceOldest)},

	{"RECLAIM_LAPSED", int64(guard.ReclaimLapsed)},
	{"RECLAIM_OFF", int64(guard.ReclaimOff)},

	{"MAX_LIMIT", guard.MaxLimit},
	{"MAX_OBSERVED", guard.MaxObserved},
	{"MAX_MARKS", guard.MaxMarks},
	{"MAX_IN_THE_WAY", guard.MaxInTheWay},
	{"MAX_LABELS", guard.MaxLabels},
	{"MAX_RETURNS", guard.MaxReturns},
	{"SETTLE", guard.Settle.Milliseconds()},
	{"MAX_GRACES", guard.MaxGraces},
	{"WATCHED_AFTER", guard.Watched.Milliseconds()},
})

type constant struct {
	name  string
	value int64
}

func locals(constants []constant) string {
	names, values := make([]string, len(constants)), make([]string, len(constants))
	for i, c := range constants {
		names[i], values[i] = c.name, strconv.FormatInt(c.value, 10)
	}
	return "local " + strings.Join(names, ", ") + " = " + strings.Join(values, ", ") + "\n"
}
