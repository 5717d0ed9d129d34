-- Admits a playback or says why not.
-- KEYS[1]  the user's key
-- ARGV     id, stream, device, labels, intent, interval, ttl, reclaim_lapsed, channel,
--          alone (16 bytes; names; guard.Labels; guard.Intent; milliseconds twice;
--          0 or 1; where revocations are published; milliseconds), then of each
--          rule: per, limit, at_limit (guard.Rule; the limit itself is the last)
-- Returns  outcome (guard.Outcome), now in milliseconds, the user's records,
--          the rule that refuses (1 the first), the ids that were replaced

local REPLACE_DEVICE, REPLACE_OLDEST = '1', '2'
local MAX_LIMIT = 1000  -- guard.MaxLimit
local SETTLE = 5000     -- guard.Settle in milliseconds
local MAX_LABELS = 1024 -- guard.MaxLabels
local reclaim, channel, alone = ARGV[8] == '1', ARGV[9], tonumber(ARGV[10])

local own = find('G', id)
if not own and intent == SHARE then
  local shared = false
  for _, r in ipairs(records) do
    if r.kind == 'G' and r.stream == stream and r.device == device then
      r.refreshed, r.interval, r.ttl = now, interval, ttl
      shared = true
    end
  end
  if shared then return { REFRESHED, now, save(id, ttl) } end
  for _, r in ipairs(records) do -- the last that was looked at
    if r.kind == 'V' and r.stream == stream and r.device == device then id, intent = r.id, CONTINUE end
  end
end
local mark = find('L', id)
if mark then
  local since = now - mark.created
  if (intent == CONTINUE or intent == SHARE) and since < SETTLE or intent == RESUME and (alone == 0 or since <= alone) then
    return { RELEASED, now, value }
  end
end

-- What the guard will be.
local new = { kind = 'G', id = id, created = own and own.created or now, refreshed = now, interval = interval, ttl = ttl, stream = stream, device = device, labels = labels }
if own then
  if stream == '' then new.stream = own.stream end
  if device == '' then new.device = own.device end
  for name, value in own.labels:gmatch('([^\31=]+)=([^\31]+)') do
    local label = name .. '=' .. value .. '\31'
    if new.labels == '' then label = '\31' .. label end
    if #new.labels + #label <= MAX_LABELS and not new.labels:find('\31' .. name .. '=', 1, true) then
      new.labels = new.labels .. label
    end
  end
end

-- What a rule goes by; '' is beyond it.
local function of(r, per)
  if per == '' then return 'all' end
  if per == 'stream' or per == 'device' then return r[per] end
  return r.labels:match('\31' .. per .. '=([^\31]*)') or ''
end

local function expires(r) return r.refreshed + r.interval end

-- Finds what has to go before every rule allows the guard: the longest lapsed
-- where lapsed guards may lose their slots, then the oldest where a start
-- replaces them. Whose manifest was looked at is starting: a straggler of the
-- playback before may have taken the room.
local starts = intent == START or intent == LOOK or intent == CONTINUE and find('V', id)
local going, replaced = {}, {}
for i = 11, #ARGV, 3 do
  local per, limit, at_limit = ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2]
  if not own and intent == RESUME then
    per, limit = '', MAX_LIMIT
  end
  local is = of(new, per)
  if is ~= '' and not (own and of(own, per) == is) then
    local excess, lapsed, others = 1 - limit, {}, {}
    for _, r in ipairs(records) do
      if r.kind == 'G' and r ~= own and not going[r] and of(r, per) == is then
        excess = excess + 1
        if reclaim and expires(r) <= now then
          lapsed[#lapsed + 1] = r
        elseif at_limit == REPLACE_OLDEST or at_limit == REPLACE_DEVICE and new.device ~= '' and r.device == new.device then
          others[#others + 1] = r
        end
      end
    end
    table.sort(lapsed, function(a, b)
      if expires(a) ~= expires(b) then return expires(a) < expires(b) end
      return a.place < b.place
    end)
    for _, r in ipairs(lapsed) do
      if excess <= 0 then break end
      going[r], excess = 'lapsed', excess - 1
    end
    for _, r in ipairs(others) do
      if excess <= 0 or not starts then break end
      going[r], excess = 'replaced', excess - 1
      replaced[#replaced + 1] = r.id
    end
    if excess > 0 then return { REJECTED, now, value, (i - 8) / 3 } end
  end
end

for r, why in pairs(going) do
  if why == 'lapsed' and (own or intent ~= LOOK) then drop('G', r.id) end
end
local outcome = REFRESHED
if own then
  local _, i = find('G', id)
  records[i] = new
elseif intent == LOOK then
  outcome = VACANT
else
  outcome = ADMITTED
  drop('L', id)
  drop('V', id)
  records[#records + 1] = new
end
if outcome ~= VACANT then
  save(id, ttl)
elseif not mark then
  -- On a device the last stream that was looked at has the mark: under
  -- whichever of several ids.
  for i = #records, 1, -1 do
    local r = records[i]
    if r.kind == 'V' and r.device == device and (r.stream ~= stream or r.id == id) then table.remove(records, i) end
  end
  new.kind, new.interval, new.ttl, new.labels = 'V', 0, SETTLE, ''
  records[#records + 1] = new
  save(id, SETTLE)
  if marks > MAX_MARKS then
    forget_mark()
    write(SETTLE)
  end
end
for _, other in ipairs(replaced) do finish('R', other, ttl, channel) end
return { outcome, now, value, 0, table.concat(replaced) }
