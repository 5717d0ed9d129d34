-- What every script starts with: the user's value, and the clock.
--
-- KEYS[1] is the user's key. Its value is the layout's version, one byte '1',
-- and then the user's records, oldest first, numbers big-endian:
--
--   offset
--    0  kind     1 byte   'G' guard, 'L' released mark, 'R' revoked mark
--    1  id      16 bytes
--   17  created  6 bytes  milliseconds since 1970; of a mark: when it was made
--   23  expires  6 bytes  of a mark: 0
--   29  removed  6 bytes  of a mark: when it is forgotten
--   35  lengths  1, 1 and 2 bytes, of
--   39  stream, device, labels
--
-- A record whose time is over is as if it were not there. Redis' TIME is the
-- only clock.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local value = redis.call('GET', KEYS[1]) or '1'
if value:byte() ~= 49 then error('unknown layout version in ' .. KEYS[1]) end

local held, marks   -- guards and marks of the user
local over          -- whether any record's time is over
local last          -- when the last record is over, but for the one located

-- Where a playback's record starts, how long it is and its kind; nil without one.
local function locate(id)
  held, marks, over, last = 0, 0, false, now
  local at, found, found_size, found_kind = 2
  while at <= #value do
    local stream, device, high, low = value:byte(at + 35, at + 38)
    local size = 39 + stream + device + high * 256 + low
    local kind, own, _, _, removed = struct.unpack('>c1c16I6I6I6', value, at)
    if removed <= now then
      over = true
    else
      if own == id then
        found, found_size, found_kind = at, size, kind
      elseif removed > last then
        last = removed
      end
      if kind == 'G' then held = held + 1 else marks = marks + 1 end
    end
    at = at + size
  end
  return found, found_size, found_kind
end

-- Writes the value, to live as long as the last of its records; the one
-- located, or new, lives for ttl.
local function write(ttl)
  redis.call('SET', KEYS[1], value, 'PX', math.max(last - now, ttl))
end

-- Extends both times of the guard that starts there.
local function extend(at, interval, ttl)
  value = value:sub(1, at + 22) .. struct.pack('>I6I6', now + interval, now + ttl) .. value:sub(at + 35)
  write(ttl)
end
