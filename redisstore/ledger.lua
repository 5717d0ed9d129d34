-- What every script shares: reading and writing a user's ledger.
--
-- KEYS[1] is the user's key. Its value is the layout's version, one byte '1',
-- and then the user's records, oldest first, numbers big-endian:
--
--   kind     1 byte   'G' guard, 'L' released mark, 'R' revoked mark
--   id      16 bytes
--   created  6 bytes  milliseconds since 1970; of a mark: when it was made
--   expires  6 bytes  of a mark: 0
--   removed  6 bytes  of a mark: when it is forgotten
--   stream   1 byte length and as many bytes
--   device   1 byte length and as many bytes
--
-- Redis' TIME is the only clock.

local RECORD = '>c1c16I6I6I6Bc0Bc0'
local MAX_MARKS = 32   -- guard.MaxMarks
local MAX_LIMIT = 1000 -- guard.MaxLimit
local SETTLE = 5000    -- guard.Settle in milliseconds

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local records, guards = {}, 0

local function read()
  local value = redis.call('GET', KEYS[1])
  if not value then return end
  if value:sub(1, 1) ~= '1' then
    error('unknown layout version in ' .. KEYS[1])
  end
  local at = 2
  while at <= #value do
    local r = {}
    r.kind, r.id, r.created, r.expires, r.removed, r.stream, r.device, at = struct.unpack(RECORD, value, at)
    if r.removed > now then
      records[#records + 1] = r
      if r.kind == 'G' then guards = guards + 1 end
    end
  end
end

local function encode()
  local parts = { '1' }
  for i, r in ipairs(records) do
    parts[i + 1] = struct.pack(RECORD, r.kind, r.id, r.created, r.expires, r.removed,
      #r.stream, r.stream, #r.device, r.device)
  end
  return table.concat(parts)
end

-- Writes the records, to live as long as the last of them, and returns them.
local function write()
  local value, last = encode(), now
  for _, r in ipairs(records) do last = math.max(last, r.removed) end
  redis.call('SET', KEYS[1], value, 'PX', last - now)
  return value
end

local function find(kind, id)
  for i, r in ipairs(records) do
    if r.kind == kind and r.id == id then return r, i end
  end
end

local function drop(kind, id)
  local r, i = find(kind, id)
  if r then
    table.remove(records, i)
    if kind == 'G' then guards = guards - 1 end
  end
  return r
end

-- Frees the slot of a guard, leaves a mark of this kind for ttl and tells
-- everybody on the channel. When there are too many marks the oldest release
-- goes, or else the oldest revocation.
local function finish(kind, id, ttl, channel)
  if not drop('G', id) then return 0 end
  records[#records + 1] = { kind = kind, id = id, created = now, expires = 0, removed = now + ttl, stream = '', device = '' }
  if #records - guards > MAX_MARKS then
    local oldest
    for i, r in ipairs(records) do
      if r.kind == 'L' then
        oldest = i
        break
      end
      if r.kind == 'R' and not oldest then oldest = i end
    end
    table.remove(records, oldest)
  end
  write()
  redis.pcall('PUBLISH', channel, id) -- a hint: without the right to it all else holds
  return 1
end

read()
