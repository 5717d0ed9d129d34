-- What every script starts with: the user's value, and the clock.
--
-- KEYS[1] is the user's key. Its value is the layout's version, one byte '2',
-- and then the user's records, oldest first, numbers big-endian:
--
--   offset
--    0  kind      1 byte   'G' guard; marks: 'R' revoked, 'P' replaced, 'L' released, 'B' released
--                          and back; 'F' some ends were forgotten (its id is all zeros)
--    1  id       16 bytes
--   17  length    2 bytes  of what follows offset 55
--   19  refreshed 6 bytes  milliseconds since 1970; of a guard that is closed: when it was; of a mark:
--                          when it was made, or was last to stay
--   25  ttl       4 bytes  milliseconds that it exists from then on
--   29  doubted   4 bytes  0, or of a guard that is doubted: 1 + milliseconds from refreshed until it was
--   33  interval  4 bytes  milliseconds from refreshed on that it is active, 0 once it is closed; of
--                          'L' and 'B': that stragglers pass; of others: 0
--   37  flags     2 bytes  those of a guard stay on its mark:
--                            1  media of its own have come under its id
--                            2  it was made for a request without a name
--                            4  nothing was asked under it but what made it
--                            8  of 'P': it has refused somebody who was watching
--                           16  of 'P': its playback has started anew
--                           32  of 'P': requests without a name are another start's now
--                           64  with an interval of 0: the client has closed its connections
--                          128  that they are closed means nothing: it was refreshed after that, or
--                               by another node than made it
--                          256  its requests are long ones: it serves no other path of its client
--                          512  of 'P': it was closed or lapsed, and a start took its slot
--   39  lengths   1, 1 and 2 bytes, of stream, device and labels
--   43  created   6 bytes  milliseconds since 1970; of a mark: when it was made
--   49  returns   1 byte   how often playbacks of its stream have come back from a replacement
--   50  node      1 byte   of a guard: which node made it, 0 nobody in particular; of a mark: 0;
--                          reserved: why it ended
--   51  client    4 bytes  guard.Client of what made it
--   55  stream, device, labels ('\31name=value\31…\31'), and what later versions
--                          add to a record (60,000 bytes at most)
--
-- From here on a version changes this by addition only. Records of other kinds are
-- a later version's: they are kept as they are, and count for nothing; and so are
-- its flags, its reasons, and what it adds to a record. A record whose time is over
-- is as if it were not there. Redis' TIME is the only clock. Where it has gone back,
-- and a record was refreshed or doubted in the future, that counts as done now:
-- nothing outlives its ttl because of a clock.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local value = redis.call('GET', KEYS[1]) or '2'
if value:byte() ~= 50 then
  local whose = value:byte() == 49 and "an earlier checkout's, whose guards have to end first" or 'unknown'
  return redis.error_reply('LAYOUT version byte ' .. tostring(value:byte()) .. ' is ' .. whose)
end

local RECORD, HEADER = '>c1c16I2I6I4I4I4I2BBI2I6BBI4', 55
local NAMED, NAMELESS, UNPROVEN, WATCHED, LIFTED, PARTED, CLOSED, REOPENED, LONG, TAKEN = 1, 2, 4, 8, 16, 32, 64, 128, 256, 512 -- flags
local NOBODY = '\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0'
local band, bor = bit.band, bit.bor

local function without(flags, flag) return flags - band(flags, flag) end

-- Drops what is over, and has nothing be ahead of the clock.
local function put_right()
  local parts, at = { '2' }, 2
  while at <= #value do
    local length, before, ttl, doubted = struct.unpack('>I2I6I4I4', value, at + 17)
    local after, refreshed = at + HEADER + length, math.min(before, now)
    if refreshed + ttl > now then
      local created = struct.unpack('>I6', value, at + 43)
      if doubted > 0 then doubted = math.min(before + doubted, now + 1) - refreshed end
      parts[#parts + 1] = value:sub(at, at + 18) .. struct.pack('>I6I4I4', refreshed, ttl, doubted) .. value:sub(at + 33, at + 42)
        .. struct.pack('>I6', math.min(created, now)) .. value:sub(at + 49, after - 1)
    end
    at = after
  end
  value = table.concat(parts)
end

local held -- guards of the user
local replacements -- marks of those that were replaced
local last -- when the last record is over, leaving out the one located

-- Where a playback's record starts, where the next one does, its kind, and whether
-- there is another; nil without one. A guard comes after the marks of its playback;
-- 'B' is not located. The value is put right on the way.
local function locate(id, right)
  held, replacements, last = 0, 0, now
  local at, over_then, found, found_after, found_kind, another = 2
  while at <= #value do
    local kind, own, length, refreshed, ttl, doubted = struct.unpack('>c1c16I2I6I4I4', value, at)
    local after, over = at + HEADER + length, refreshed + ttl
    if refreshed > now or refreshed + doubted > now + 1 or over <= now then
      put_right()
      return locate(id, true)
    end
    if kind == 'G' then held = held + 1 elseif kind == 'P' then replacements = replacements + 1 end
    if own == id and (kind == 'G' or kind == 'R' or kind == 'P' or kind == 'L') then
      found, found_after, found_kind, another, over_then, over = at, after, kind, found ~= nil, over, over_then or now
    end
    if over > last then last = over end
    at = after
  end
  -- This is written even if the call changes nothing. If Redis is full it is not,
  -- and a later call does it.
  if right then
    redis.pcall('SET', KEYS[1], value, 'PX', math.max(last, over_then or 0, now + 1) - now)
  end
  return found, found_after, found_kind, another
end

-- Writes the value, whose last record is over at that time.
local function write(over)
  redis.call('SET', KEYS[1], value, 'PX', over - now)
end

-- Tells everybody. It is a hint: without the right to it all else holds.
local function publish(channel, id) redis.pcall('PUBLISH', channel, id) end

-- The interval and ttl of a guard that is refreshed now. Neither of its times goes
-- back, whatever another handler's are: nodes rely on what they were told.
local function extended(refreshed, old_interval, old_ttl, interval, ttl)
  return math.max(interval, refreshed + old_interval - now), math.max(ttl, refreshed + old_ttl - now)
end

-- Refreshes the guard that starts there for a node, and adds flags to it. One that was
-- closed, or that another node made, is never closed again. Returns what the script does
-- then.
local function extend(at, after, interval, ttl, more, node, channel)
  local refreshed, old_ttl, doubted, old_interval, flags = struct.unpack('>I6I4I4I4I2', value, at + 19)
  interval, ttl = extended(refreshed, old_interval, old_ttl, interval, ttl)
  flags = without(bor(flags, more), UNPROVEN)
  if band(flags, CLOSED) ~= 0 or value:byte(at + 50) ~= node then flags = bor(without(flags, CLOSED), REOPENED) end
  value = value:sub(1, at + 18) .. struct.pack('>I6I4I4I4I2', now, ttl, 0, interval, flags) .. value:sub(at + 39)
  write(math.max(last, now + ttl))
  if doubted > 0 then publish(channel, value:sub(at + 1, at + 16)) end
  return { REFRESHED, now, held, value:sub(at, after - 1), doubted > 0 and 1 or 0 }
end
