-- Frees the slot of a guard and leaves a mark: release with KIND 'L', after which
-- its playback may start again; revoke with 'R', which refuses it.
-- KEYS[1]  the user's key
-- ARGV     id, ttl, channel (16 bytes; milliseconds; where it is published)
-- Returns  1, or 0 where there was no guard

local id, ttl, channel = ARGV[1], tonumber(ARGV[2]), ARGV[3]

local _, _, kind = locate(id)
if kind ~= 'G' then return 0 end
--- ledger.lua: the rest is done on tables.

read()
finish(KIND, { id }, ttl, {})
save(channel)
return 1
