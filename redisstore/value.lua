-- What every script starts with: the user's value, and the clock.
--
-- KEYS[1] is the user's key. Its value is the layout's version, one byte '1',
-- and then the user's records, oldest first, numbers big-endian:
--
--   offset
--    0  kind      1 byte   'G' guard; marks: 'R' revoked, 'L' released, 'B' released and back,
--                          'V' looked at (for Vacant); 'F' some ends were forgotten (it has no id)
--    1  id       16 bytes
--   17  created   6 bytes  milliseconds since 1970
--   23  refreshed 6 bytes  the same; of a mark: when it was made, as created
--   29  interval  4 bytes  milliseconds that it is active from then on; of 'L': that stragglers pass; of others: 0
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

local RECORD = '>c1c16I6I6I4I4BBI2'

-- Drops what is over, and has nothing be ahead of the clock.
local function put_right()
  local parts, at = { '1' }, 2
  while at <= #value do
    local _, _, created, refreshed, _, ttl, stream, device, labels, names = struct.unpack(RECORD, value, at)
    local after = names + stream + device + labels
    refreshed = math.min(refreshed, now)
    if refreshed + ttl > now then
      parts[#parts + 1] = value:sub(at, at + 16) .. struct.pack('>I6I6', math.min(created, now), refreshed) .. value:sub(at + 29, after - 1)
    end
    at = after
  end
  value = table.concat(parts)
end

local held -- guards of the user
local last -- when the last record is over, leaving out the one located

-- Where a playback's record starts, where the next one does, its kind, and when
-- it is over; nil without one. A playback has one record besides 'B', which is
-- not located. The value is put right on the way.
local function locate(id, right)
  held, last = 0, now
  local at, found, found_after, found_kind, found_over = 2
  while at <= #value do
    local kind, own, _, refreshed, _, ttl, stream, device, labels, names = struct.unpack(RECORD, value, at)
    local after, over = names + stream + device + labels, refreshed + ttl
    if refreshed > now or over <= now then
      put_right()
      return locate(id, true)
    end
    if kind == 'G' then held = held + 1 end
    if own == id and (kind == 'G' or kind == 'R' or kind == 'L' or kind == 'V') then
      found, found_after, found_kind, found_over = at, after, kind, over
    elseif over > last then
      last = over
    end
    at = after
  end
  -- This is written even if the call changes nothing. If Redis is full it is not,
  -- and a later call does it.
  if right then
    redis.pcall('SET', KEYS[1], value, 'PX', math.max(last, found_over or 0, now + 1) - now)
  end
  return found, found_after, found_kind, found_over
end

-- Writes the value, whose last record is over at that time.
local function write(over)
  redis.call('SET', KEYS[1], value, 'PX', over - now)
end

-- The interval and ttl of a guard that is refreshed now. Neither of its times goes
-- back, whatever another handler's are: nodes rely on what they were told.
local function extended(refreshed, old_interval, old_ttl, interval, ttl)
  return math.max(interval, refreshed + old_interval - now), math.max(ttl, refreshed + old_ttl - now)
end

-- Extends both times of the guard that starts there.
local function extend(at, interval, ttl)
  local refreshed, old_interval, old_ttl = struct.unpack('>I6I4I4', value, at + 23)
  interval, ttl = extended(refreshed, old_interval, old_ttl, interval, ttl)
  value = value:sub(1, at + 22) .. struct.pack('>I6I4I4', now, interval, ttl) .. value:sub(at + 37)
  write(math.max(last, now + ttl))
end
