-- Extends both times of a guard; never creates one.
-- KEYS[1]  the user's key
-- ARGV     id, interval, ttl (16 bytes; milliseconds twice)
-- Returns  outcome (guard.Outcome), now in milliseconds, the user's records

local REFRESHED, REVOKED, ABSENT = 2, 6, 7

if find('R', ARGV[1]) then return { REVOKED, now, encode() } end
local own = find('G', ARGV[1])
if not own then return { ABSENT, now, encode() } end
own.expires, own.removed = now + tonumber(ARGV[2]), now + tonumber(ARGV[3])
return { REFRESHED, now, write() }
