-- Extends both times of a guard; never creates one.
-- KEYS[1]  the user's key
-- ARGV     id, interval, ttl (16 bytes; milliseconds twice)
-- Returns  outcome (guard.Outcome), now in milliseconds, guards held, the guard's record

local id, interval, ttl = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])

local at, after, kind = locate(id)
if kind == 'R' then return { REVOKED, now, held, '' } end
if kind ~= 'G' then return { ABSENT, now, held, '' } end
extend(at, interval, ttl)
return { REFRESHED, now, held, value:sub(at, after - 1) }
