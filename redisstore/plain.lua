-- What nearly every acquire is, done on the bytes: a known playback of which
-- nothing changes but the times, or a new one with room for it and no rule but
-- the limit. ARGV is acquire's.

local id, stream, device, labels = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local intent, interval, ttl = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local START, CONTINUE, LOOK, SHARE, RESUME = 0, 1, 2, 3, 4
local ADMITTED, REFRESHED, VACANT, RELEASED, REJECTED, REVOKED = 1, 2, 3, 4, 5, 6

local at, after, kind = locate(id)
if kind == 'R' then return { REVOKED, now, value } end
local names = struct.pack('>BBI2', #stream, #device, #labels) .. stream .. device .. labels
if kind == 'G' and value:sub(at + 37, after - 1) == names then
  extend(at, interval, ttl)
  return { REFRESHED, now, value }
end
if not kind and #ARGV == 13 and held < tonumber(ARGV[12]) and (intent == START or intent == CONTINUE) then
  value = value .. struct.pack('>c1c16I6I6I4I4', 'G', id, now, now, interval, ttl) .. names
  write(ttl)
  return { ADMITTED, now, value }
end
