-- Extends both times of a guard; never creates one.
-- KEYS[1]  the user's key
-- ARGV     id, interval, ttl (16 bytes; milliseconds twice)
-- Returns  outcome (guard.Outcome), now in milliseconds, the user's records

local REFRESHED, REVOKED, ABSENT = 2, 6, 7

local at, _, kind = locate(ARGV[1])
if kind == 'R' then return { REVOKED, now, value } end
if kind ~= 'G' then return { ABSENT, now, value } end
extend(at, tonumber(ARGV[2]), tonumber(ARGV[3]))
return { REFRESHED, now, value }
