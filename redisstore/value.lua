-- What every script starts with: the user's value, and the clock.
--
-- KEYS[1] is the user's key. Its value is the layout's version, one byte '1',
-- and then the user's records, oldest first, numbers big-endian:
--
--   offset
--    0  kind      1 byte   'G' guard, 'L' released mark, 'R' revoked mark, 'V' mark of a look (for Vacant)
--    1  id       16 bytes
--   17  created   6 bytes  milliseconds since 1970
--   23  refreshed 6 bytes  the same; of a mark: when it was made, as created
--   29  interval  4 bytes  milliseconds that it is active from then on; of a mark: 0
--   33  ttl       4 bytes  milliseconds that it exists
--   37  lengths   1, 1 and 2 bytes, of
--   41  stream, device, labels ('\31name=value\31…\31')
--
-- Records of other kinds are a later version's: they are kept as they are, and
-- count for nothing. A record whose time is over is as if it were not there. Redis' TIME is the
-- only clock. Where it has gone back, and a record was refreshed in the future,
-- it counts as refreshed now: nothing outlives its ttl because of a clock.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local value = redis.call('GET', KEYS[1]) or '1'
if value:byte() ~= 49 then return redis.error_reply('LAYOUT unknown version byte ' .. tostring(value:byte())) end

local held, marks   -- guards and marks of the user
local last          -- when the last record is over, but for the one located

-- Where a playback's record starts, how long it is and its kind; nil without
-- one. What is over, or ahead of the clock, is put right on the way.
local function locate(id)
  held, marks, last = 0, 0, now
  local at, changed, found, found_size, found_kind, found_removed = 2, false
  while at <= #value do
    local stream, device, high, low = value:byte(at + 37, at + 40)
    local size = 41 + stream + device + high * 256 + low
    local kind, own, created, refreshed, _, ttl = struct.unpack('>c1c16I6I6I4I4', value, at)
    if refreshed > now then
      value = value:sub(1, at + 16) .. struct.pack('>I6I6', math.min(created, now), now) .. value:sub(at + 29)
      refreshed, changed = now, true
    end
    local removed = refreshed + ttl
    if removed <= now then
      value = value:sub(1, at - 1) .. value:sub(at + size)
      changed = true
    else
      local known = true
      if kind == 'G' then
        held = held + 1
      elseif kind == 'L' or kind == 'R' or kind == 'V' then
        marks = marks + 1
      else
        known = false
      end
      if known and own == id then
        found, found_size, found_kind, found_removed = at, size, kind, removed
      elseif removed > last then
        last = removed
      end
      at = at + size
    end
  end
  -- Whatever becomes of the call: without room to write it will be put right
  -- another time.
  if changed then
    redis.pcall('SET', KEYS[1], value, 'PX', math.max(last - now, (found_removed or now) - now, 1))
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
  value = value:sub(1, at + 22) .. struct.pack('>I6I4I4', now, interval, ttl) .. value:sub(at + 37)
  write(ttl)
end
