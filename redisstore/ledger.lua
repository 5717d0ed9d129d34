-- A user's records as tables, for scripts that do more than extend a time.

local records
local changed = false -- whether they are to be written,
local news = {}       -- and the ids that are to be published

-- Reads the records of a value that is right: start and after are where each of them
-- stands there.
local function read()
  records = {}
  local at = 2
  while at <= #value do
    local kind, id, length, refreshed, ttl, doubted, interval, flags, stream, device, labels, created, returns, node, client, names = struct.unpack(RECORD, value, at)
    local devices_at = names + stream
    local labels_at = devices_at + device
    local extra_at = labels_at + labels
    local start = at
    at = names + length
    records[#records + 1] = {
      start = start, after = at,
      kind = kind, id = id, refreshed = refreshed, ttl = ttl, doubted = doubted, interval = interval, flags = flags,
      created = created, returns = returns, node = node, client = client,
      stream = value:sub(names, devices_at - 1), device = value:sub(devices_at, labels_at - 1),
      labels = value:sub(labels_at, extra_at - 1), extra = value:sub(extra_at, at - 1),
    }
  end
end

-- The first record of which this is true, and which one it is.
local function first(where)
  for i, r in ipairs(records) do
    if where(r) then return r, i end
  end
end

local function find(kind, id)
  return first(function(r) return r.kind == kind and r.id == id end)
end

-- Drops the records of which this is true.
local function drop(where)
  local kept = {}
  for _, r in ipairs(records) do
    if not where(r) then kept[#kept + 1] = r end
  end
  records = kept
end

local function is(r, flag) return band(r.flags, flag) ~= 0 end
local function set(r, flag) r.flags, changed = bor(r.flags, flag), true end
local function over(r) return r.refreshed + r.ttl end

local function pack(r)
  local names = r.stream .. r.device .. r.labels .. r.extra
  return struct.pack(RECORD, r.kind, r.id, #names, r.refreshed, r.ttl, r.doubted, r.interval, r.flags,
    #r.stream, #r.device, #r.labels, r.created, r.returns, r.node, r.client) .. names
end

-- Writes the records, if they have changed, and tells the news.
local function save(channel)
  if changed then
    local parts, last = { '2' }, now + 1
    held = 0
    for i, r in ipairs(records) do
      parts[i + 1] = pack(r)
      last = math.max(last, over(r))
      if r.kind == 'G' then held = held + 1 end
    end
    value = table.concat(parts)
    write(last)
  end
  for _, id in ipairs(news) do publish(channel, id) end
end

-- Is a sign of life of a guard, by a node. Returns 1 if it had been doubted, or 0.
local function refresh(r, interval, ttl, node)
  local answered = r.doubted > 0
  r.interval, r.ttl = extended(r.refreshed, r.interval, r.ttl, interval, ttl)
  r.refreshed, r.doubted, r.flags, changed = now, 0, without(r.flags, UNPROVEN), true
  if is(r, CLOSED) or r.node ~= node then r.flags = bor(without(r.flags, CLOSED), REOPENED) end
  if answered then news[#news + 1] = r.id end
  return answered and 1 or 0
end

-- Whether a record refuses its playback.
local function stops(r) return r.kind == 'R' or r.kind == 'P' and not is(r, LIFTED) end

-- Keeps a mark for another ttl, when less than half of that is left.
local function stay(mark, ttl)
  if over(mark) - now < ttl / 2 then mark.refreshed, mark.ttl, changed = now, ttl, true end
end

-- Refuses a request by a mark. Who is refused by a replacement once the news of it
-- is out is watched by somebody, and the mark stays as long as that goes on. Returns
-- the outcome, and in how many milliseconds that is over.
local function stop(mark, ttl)
  if mark.kind == 'R' then return REVOKED, over(mark) - now end
  if now - mark.created > WATCHED_AFTER and not is(mark, WATCHED) then set(mark, WATCHED) end
  stay(mark, ttl)
  return REPLACED, over(mark) - now
end

-- Marks by what is lost with them.
local WEIGHTS = { B = 1, L = 2, P = 3, R = 5 }
local function weight(r) return (WEIGHTS[r.kind] or 0) + (r.kind == 'P' and is(r, WATCHED) and 1 or 0) end

-- Forgets marks beyond MAX_MARKS, the oldest of the least weight first, and remembers
-- that an end was forgotten.
local function forget_marks()
  local excess, until_then = -MAX_MARKS, now
  for _, r in ipairs(records) do
    if WEIGHTS[r.kind] then excess = excess + 1 end
  end
  for least = 1, 5 do
    if excess <= 0 then break end
    drop(function(r)
      if weight(r) ~= least or excess <= 0 then return false end
      excess = excess - 1
      if r.kind ~= 'B' then until_then = math.max(until_then, over(r)) end
      return true
    end)
  end
  local before = find('F', NOBODY)
  if until_then == now or before and over(before) >= until_then then return end
  drop(function(r) return r == before end)
  records[#records + 1] = {
    kind = 'F', id = NOBODY, created = now, refreshed = now, interval = 0, ttl = until_then - now, doubted = 0,
    flags = 0, returns = 0, node = 0, client = 0, stream = '', device = '', labels = '', extra = '',
  }
end

-- Turns guards into marks of this kind, the only ones of their playbacks, with the flags
-- that flags has of each. A mark lives for ttl, or for the guard's own if that is longer;
-- with a ttl of 0 there is none.
local function finish(kind, ids, ttl, flags)
  local ends, guards, again, releases = {}, {}, {}, 0
  for _, id in ipairs(ids) do ends[id] = true end
  drop(function(r)
    if not ends[r.id] or r.kind ~= 'G' and not WEIGHTS[r.kind] then return false end
    if r.kind == 'G' then guards[r.id] = r end
    if r.kind == 'B' then again[r.id] = true end
    return true
  end)
  for _, r in ipairs(records) do
    if r.kind == 'L' then releases = releases + 1 end
  end
  local settle = releases >= MAX_GRACES and WATCHED_AFTER or SETTLE
  for _, id in ipairs(ids) do
    local r = guards[id]
    r.kind, r.ttl, r.doubted, r.node, r.labels = kind, math.max(ttl, r.ttl), 0, 0, ''
    r.interval = kind == 'L' and not again[id] and math.min(settle, now - r.created) or 0
    r.flags = bor(r.flags, flags[r] or 0)
    r.created, r.refreshed = now, now
    if ttl > 0 then records[#records + 1] = r end
    news[#news + 1] = id
  end
  changed = true
  forget_marks()
end
