-- Closes a guard: its client has closed the connections that it was watched on.
-- KEYS[1]  the user's key
-- ARGV     id, node, channel (16 bytes; 1 to 255; where it is published)
-- Returns  1, or 0 where there is no such guard, or none that is to be closed

local id, node, channel = ARGV[1], tonumber(ARGV[2]), ARGV[3]

local at, after, kind = locate(id)
if kind ~= 'G' then return 0 end
local refreshed, ttl, _, _, flags = struct.unpack('>I6I4I4I4I2', value, at + 19)
if band(flags, CLOSED + REOPENED) ~= 0 or value:byte(at + 50) ~= node then return 0 end
ttl = refreshed + ttl - now
value = value:sub(1, at + 18) .. struct.pack('>I6I4I4I4I2', now, ttl, 0, 0, flags + CLOSED) .. value:sub(at + 39)
write(math.max(last, now + ttl))
publish(channel, id)
return 1
