-- A user's records as tables, for scripts that do more than extend a time.

local records

-- Reads the records of a value that is right.
local function read()
  records = {}
  local at = 2
  while at <= #value do
    local kind, id, created, refreshed, interval, ttl, stream, device, labels, rest = struct.unpack(RECORD, value, at)
    local devices, after = rest + stream, rest + stream + device + labels
    records[#records + 1] = {
      kind = kind, id = id, created = created, refreshed = refreshed, interval = interval, ttl = ttl,
      stream = value:sub(rest, devices - 1), device = value:sub(devices, after - labels - 1), labels = value:sub(after - labels, after - 1),
    }
    at = after
  end
end

local function find(kind, id)
  for i, r in ipairs(records) do
    if r.kind == kind and r.id == id then return r, i end
  end
end

-- Drops the records of which this is true.
local function drop(where)
  local kept = {}
  for _, r in ipairs(records) do
    if not where(r) then kept[#kept + 1] = r end
  end
  records = kept
end

local function pack(r)
  return struct.pack(RECORD, r.kind, r.id, r.created, r.refreshed, r.interval, r.ttl, #r.stream, #r.device, #r.labels) .. r.stream .. r.device .. r.labels
end

-- Writes the records.
local function save()
  local parts, over = { '1' }, now + 1
  held = 0
  for i, r in ipairs(records) do
    parts[i + 1] = pack(r)
    over = math.max(over, r.refreshed + r.ttl)
    if r.kind == 'G' then held = held + 1 end
  end
  value = table.concat(parts)
  write(over)
end

-- Adds a mark that is made now.
local function mark(kind, id, grace, ttl, stream, device)
  records[#records + 1] = { kind = kind, id = id, created = now, refreshed = now, interval = grace, ttl = ttl, stream = stream, device = device, labels = '' }
end

local FORGETS = { 'V', 'B', 'L', 'R' } -- in this order, the oldest of a kind first
local NOBODY = ('\0'):rep(16)

-- Forgets marks beyond MAX_MARKS, and remembers that an end was forgotten.
local function forget_marks()
  local excess, until_then = -MAX_MARKS, now
  for _, r in ipairs(records) do
    if r.kind == 'V' or r.kind == 'B' or r.kind == 'L' or r.kind == 'R' then excess = excess + 1 end
  end
  for _, kind in ipairs(FORGETS) do
    if excess > 0 then
      drop(function(r)
        if r.kind ~= kind or excess <= 0 then return false end
        excess = excess - 1
        if kind == 'L' or kind == 'R' then until_then = math.max(until_then, r.refreshed + r.ttl) end
        return true
      end)
    end
  end
  local before = find('F', NOBODY)
  if until_then == now or before and before.refreshed + before.ttl >= until_then then return end
  drop(function(r) return r == before end)
  mark('F', NOBODY, 0, until_then - now, '', '')
end

-- Turns guards into marks of this kind. A mark lives for ttl, or for the guard's
-- own if that is longer; with a ttl of 0 there is none.
local function finish(kind, ids, ttl)
  local ends, guards, again = {}, {}, {}
  for _, id in ipairs(ids) do ends[id] = true end
  drop(function(r)
    if not ends[r.id] or r.kind ~= 'G' and r.kind ~= 'B' then return false end
    if r.kind == 'G' then guards[r.id] = r else again[r.id] = true end
    return true
  end)
  for _, id in ipairs(ids) do
    local r = guards[id]
    local grace = kind == 'L' and not again[id] and math.min(SETTLE, now - r.created) or 0
    if ttl > 0 then mark(kind, id, grace, math.max(ttl, r.ttl), '', '') end
  end
  forget_marks()
end

-- Tells everybody. It is a hint: without the right to it all else holds.
local function publish(channel, ids)
  for _, id in ipairs(ids) do redis.pcall('PUBLISH', channel, id) end
end
