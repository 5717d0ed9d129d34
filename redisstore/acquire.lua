-- Admits a playback or says why not, in the steps of guard.Ledger.
-- KEYS[1]  the user's key
-- ARGV     id, stream, device, labels, intent, interval, ttl, alone, reclaim_lapsed,
--          observe, channel (16 bytes; names; guard.Labels; guard.Intent; milliseconds
--          three times; 0 or 1 twice; where revocations are published), then of each
--          rule: per, limit, at_limit (guard.Rule; the policy's own limit is the last)
-- Returns  outcome (guard.Outcome), now in milliseconds, guards held, records: the
--          guard that serves the claim, or the oldest in the way of it; when there is
--          room or a revocation is over, in milliseconds from now; the rule that
--          refuses (1 the first), the guards in its way, the ids that were replaced

local id, stream, device, labels, intent = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local interval, ttl, alone = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local reclaim, observe, channel = ARGV[9] == '1', ARGV[10] == '1', ARGV[11]
local RULES, limit = 12, tonumber(ARGV[#ARGV - 1])

local bound = observe and MAX_OBSERVED or MAX_LIMIT

-- 1. A playback that was revoked is refused.
local at, after, kind, over = locate(id)
if kind == 'R' then return { REVOKED, now, held, '', over - now } end

-- 2. Its own guard stays its own. Two cases, which are nearly all claims, are done
-- on the bytes without reading the records: a guard of which only the times change
-- (11), and a new guard with room (8) where the limit is the only rule (7).
local names = struct.pack('>BBI2', #stream, #device, #labels) .. stream .. device .. labels
if kind == 'G' and value:sub(at + 37, after - 1) == names then
  extend(at, interval, ttl)
  return { REFRESHED, now, held, value:sub(at, after - 1) }
end
if not kind and #ARGV == RULES + 2 and held < math.min(limit, bound) and (intent == START or intent == CONTINUE) then
  local new = struct.pack('>c1c16I6I6I4I4', 'G', id, now, now, interval, ttl) .. names
  value = value .. new
  write(math.max(last, now + ttl))
  return { ADMITTED, now, held + 1, new }
end

local rules = {}
for i = RULES, #ARGV, 3 do
  rules[#rules + 1] = { per = ARGV[i], limit = tonumber(ARGV[i + 1]), at_limit = tonumber(ARGV[i + 2]) }
end
--- ledger.lua and room.lua: all else is done on tables.

read()
local own = find('G', id)
local function here(r) return r.stream == stream and r.device == device end
if not own then -- Without one,
  -- 3. a request that has lost its id is served by the guards of its stream
  -- and device, or else speaks for the playback that was looked at there;
  if intent == SHARE then
    local first
    for _, r in ipairs(records) do
      if r.kind == 'G' and here(r) then
        r.interval, r.ttl = extended(r.refreshed, r.interval, r.ttl, interval, ttl)
        r.refreshed = now
        first = first or r
      end
    end
    if first then
      save()
      return { REFRESHED, now, held, pack(first) }
    end
    for _, r in ipairs(records) do
      if r.kind == 'V' and here(r) then id, intent = r.id, CONTINUE end
    end
  end
  -- 4. one from before the playback's release passes;
  local mark = find('L', id)
  if mark then
    local since = now - mark.created
    if (intent == CONTINUE or intent == SHARE) and since < mark.interval or intent == RESUME and (alone == 0 or since <= alone) then
      return { RELEASED, now, held, '' }
    end
  end
  -- 5. who resumes may be one of those whose end was forgotten;
  if intent == RESUME and find('F', NOBODY) then intent = CONTINUE end
  -- 6. a playback that was looked at starts: one from before may have taken
  -- the slot that was free for it.
  if intent == CONTINUE and find('V', id) then intent = START end
end

-- 7. What the guard will be needs room under every rule,
local new = { kind = 'G', id = id, created = own and own.created or now, refreshed = now, interval = interval, ttl = ttl, stream = stream, device = device, labels = labels }
if own then
  new.interval, new.ttl = extended(own.refreshed, own.interval, own.ttl, interval, ttl)
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
local going, replaced, refusal = make_room(own, new)
if refusal then return refusal end
-- 8. and a new one needs room in the store, which keeps only so many of one user.
if not own then
  local left = held
  for _ in pairs(going) do left = left - 1 end
  if left >= bound then return { UNCOUNTED, now, held, '' } end
end

-- 9. The guards that it replaces are revoked.
if #replaced > 0 then finish('R', replaced, ttl) end

-- 10. A look leaves a mark; those that have lapsed stay until somebody plays.
if not own and intent == LOOK then
  if not find('L', id) then
    -- On a device only the last stream that was looked at has marks, one for each
    -- of its ids.
    drop(function(r) return r.kind == 'V' and r.device == device and (r.stream ~= stream or r.id == id) end)
    mark('V', id, 0, SETTLE, stream, device)
    forget_marks()
  end
  save()
  publish(channel, replaced)
  return { VACANT, now, held, '', 0, 0, 0, table.concat(replaced) }
end
drop(function(r) return r.kind == 'G' and going[r] end)

-- 11. Its own guard is refreshed, or a guard is born.
local outcome = REFRESHED
if own then
  local _, i = find('G', id)
  records[i] = new
else
  outcome = ADMITTED
  local mark = find('L', id)
  if mark then mark.kind, mark.interval = 'B', 0 end
  drop(function(r) return r.kind == 'V' and r.id == id end)
  -- A guard is born here and, in short, at 2, and nowhere else: every rule that
  -- counts it has room for it (7), unless its playback was admitted before and
  -- resumes; and no user has more guards than a store keeps (8).
  records[#records + 1] = new
end
save()
publish(channel, replaced)
return { outcome, now, held, pack(new), 0, 0, 0, table.concat(replaced) }
