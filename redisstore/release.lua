-- Frees the slot of a guard; its playback may start again.
-- KEYS[1]  the user's key
-- ARGV     id, ttl, channel (16 bytes; milliseconds; where it is published)
-- Returns  1, or 0 where there was no guard

return finish('L', ARGV[1], tonumber(ARGV[2]), ARGV[3])
