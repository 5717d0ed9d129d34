-- Extends both times of a guard; never creates one.
-- KEYS[1]  the user's key
-- ARGV     id, interval, ttl, node, channel (16 bytes; milliseconds twice; 1 to 255; where
--          news is published)
-- Returns  outcome (guard.Outcome), now in milliseconds, guards held, the guard's record,
--          1 if it had been doubted or 0

local id, interval, ttl, node, channel = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]

local at, after, kind = locate(id)
if kind == 'G' then return extend(at, after, interval, ttl, 0, node, channel) end
if kind ~= 'R' and kind ~= 'P' then return { ABSENT, now, held, '' } end
--- ledger.lua: what is left is done on tables.

read()
local mark = first(function(r) return r.id == id and stops(r) end)
local outcome = mark and stop(mark, ttl) or ABSENT
save(channel)
return { outcome, now, held, '' }
