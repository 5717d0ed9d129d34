-- Frees the slot of a guard and refuses its playback for ttl.
-- KEYS[1]  the user's key
-- ARGV     id, ttl, channel (16 bytes; milliseconds; where it is published)
-- Returns  1, or 0 where there was no guard

return finish('R', ARGV[1], tonumber(ARGV[2]), ARGV[3])
