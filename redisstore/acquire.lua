-- Admits a playback or says why not, in the steps of guard.Ledger.
-- KEYS[1]  the user's key
-- ARGV     1  id, guard.Intent, flags, guard.Reclaim, node, interval, ttl, client, patience,
--             alone, for, path, length: 16 bytes, four times one byte, five times four,
--             twice 16 bytes, one byte, as in guard.Claim; times in milliseconds. Flags:
--             1 named, 2 nameless, 4 anew, 8 keeps, 16 waited, 32 observe, 64 reloads;
--             lengths: 1 long, 2 short
--          2  stream, device, labels (guard.Labels)
--          5  channel, where news of guards is published
--          6  of each rule: per, limit, at_limit (guard.Rule; the policy's own limit is
--             the last)
-- Returns  outcome (guard.Outcome), now in milliseconds, guards held, records: the
--          guard that serves the claim, or the oldest in the way of it; 1 if that had
--          been doubted, or is refused lately, or 0; in how many milliseconds there is
--          room, or a refusal by a mark is over, or to ask again; the rule that refuses
--          (1 the first), the guards in its way; the ids that were replaced, those that
--          were not doubted before; how many of those that were replaced, the first, were
--          closed or lapsed. What is left out at the end is 0, or none

local id, intent, flags, reclaim, node, interval, ttl, client, patience, alone, served, path, length = struct.unpack('>c16BBBBI4I4I4I4I4c16c16B', ARGV[1])
local stream, device, labels, channel, RULES = ARGV[2], ARGV[3], ARGV[4], ARGV[5], 6
local named, nameless = band(flags, 1) ~= 0, band(flags, 2) ~= 0
local anew, keeps, observe = band(flags, 4) ~= 0, band(flags, 8) ~= 0, band(flags, 32) ~= 0
local bound = observe and MAX_OBSERVED or MAX_LIMIT

-- 0. The path of a long answer is its playback's name.
local by_path = nameless and path ~= NOBODY and locate(path)
if by_path then id, nameless, named = path, false, true end

-- Two cases, which are nearly all claims, are done on the bytes without reading the
-- records: a guard of which only times and flags change (10), and a new guard, or a
-- look, with room for it under every rule (6) where no mark says anything else.
local at, after, kind, another = locate(id)
if length ~= 0 then
  -- on tables
elseif kind == 'G' and not another and (replacements == 0 or not (anew or observe)) then
  local is, streams, devices, labelled = struct.unpack('>I2BBI2', value, at + 37)
  local names = at + HEADER
  local devices_at = names + streams
  local labels_at = devices_at + devices
  if (stream == '' or keeps and streams > 0 or value:sub(names, devices_at - 1) == stream)
    and (device == '' or value:sub(devices_at, labels_at - 1) == device)
    and (labels == '' or value:sub(labels_at, labels_at + labelled - 1) == labels)
    and not (nameless and (named or band(is, NAMED) ~= 0)) then
    return extend(at, after, interval, ttl, named and NAMED or 0, node, channel)
  end
elseif not kind and replacements == 0 and intent ~= RESUME and (not nameless or value == '2' and served == NOBODY) then
  local room = bound
  for i = RULES + 1, #ARGV, 3 do room = math.min(room, tonumber(ARGV[i])) end
  if held < room then
    if intent == LOOK then return { VACANT, now, held, '' } end
    local is = (named and NAMED or 0) + (nameless and NAMELESS or 0)
    if is > 0 then is = is + UNPROVEN end
    local names = stream .. device .. labels
    local new = struct.pack(RECORD, 'G', id, #names, now, ttl, 0, interval, is, #stream, #device, #labels, now, 0, node, client) .. names
    value = value .. new
    write(math.max(last, now + ttl))
    return { ADMITTED, now, held + 1, new }
  end
end

if by_path then length = 1 end
local waited = band(flags, 16) ~= 0
local rules = {}
for i = RULES, #ARGV, 3 do
  rules[#rules + 1] = { per = ARGV[i], limit = tonumber(ARGV[i + 1]), at_limit = tonumber(ARGV[i + 2]) }
end
--- ledger.lua and room.lua: all else is done on tables.

read()
local replaced, doubted, also, over_before = {}, {}, 0, 0

local function answer(outcome, shown, free_in, n, blocking)
  save(channel)
  return { outcome, now, held, shown or '', also, free_in or 0, n or 0, blocking or 0, table.concat(replaced), table.concat(doubted), over_before }
end

local function refuse(mark)
  local outcome, free_in = stop(mark, ttl)
  return answer(outcome, '', free_in)
end

-- Whether a request without a name may be part of a playback: what is not known of
-- either matches anything.
local function may(r)
  return alike(r.stream, stream) and alike(r.device, device)
    and not is(r, LONG) and (not is(r, NAMELESS) or r.client == 0 or client == 0 or r.client == client)
end

-- Whether it is, as far as the request knows.
local function serves(r)
  return may(r) and r.stream == stream and (r.device == device or device == '')
end

-- Whether a request that comes without a guard belongs to the time before the
-- release that left the mark.
local function precedes(mark)
  if intent == RESUME then return alone == 0 or now - mark.created <= alone end
  if intent == LOOK or anew then return false end
  return now < expires(mark)
end

-- 1. A playback that was revoked is refused, and one that was replaced until it
-- starts anew, or nobody is to be refused; one whose slot was taken only where there is
-- no room (6). Requests without a name are another matter (3).
if anew or observe then
  local even_watched = observe or band(flags, 64) == 0
  for _, r in ipairs(records) do
    if r.kind == 'P' and (even_watched or not is(r, WATCHED)) then
      if r.id == id then
        set(r, LIFTED)
      elseif may(r) then
        set(r, PARTED)
      end
    end
  end
end
local mark = first(function(r) return r.id == id and stops(r) end)
local lost -- its mark, where its slot was taken
if mark and not nameless then
  if not is(mark, TAKEN) then return refuse(mark) end
  lost = mark
end

-- 2. Its own guard stays its own; that of a long answer may have been made under its
-- client's name. Without one,
local own = find('G', id)
if not own and length == 1 and not first(function(r) return r.id == id end) then
  own = find('G', served)
  if own and is(own, NAMELESS) then
    own.id, own.flags, news[#news + 1], changed = id, without(own.flags, NAMELESS), served, true
  else
    own = nil
  end
end
if not own and nameless then
  -- 3. a request without a name is served by the guards of its stream and device, or
  -- by one that may be on them, or is refused with the playback that was ended there.
  -- Where the store has lost the guard that served it before, it speaks for that;
  local oldest
  for _, r in ipairs(records) do
    if r.kind == 'G' and serves(r) then
      if not is(r, NAMED) then also = math.max(also, refresh(r, interval, ttl, node)) end
      if not oldest or is(oldest, CLOSED) and not is(r, CLOSED) then oldest = r end
    end
  end
  if oldest and is(oldest, CLOSED) then also = refresh(oldest, interval, ttl, node) end -- somebody is watching
  if oldest then return answer(REFRESHED, pack(oldest)) end
  own = first(function(r) return r.kind == 'G' and may(r) end)
  local function ended(r)
    return stops(r) and not is(r, PARTED) and may(r) or r.kind == 'R' and r.id == id or r.kind == 'L' and serves(r) and precedes(r)
  end
  mark = first(function(r) return ended(r) and not is(r, TAKEN) end) or first(ended) -- that a slot was taken is the last to be said
  if own then
    id = own.id
  elseif mark and mark.kind == 'L' then
    return answer(RELEASED)
  elseif mark and not is(mark, TAKEN) then
    return refuse(mark)
  elseif mark then
    lost = mark
  elseif served ~= NOBODY and not first(function(r) return r.id == served and (r.kind == 'G' or WEIGHTS[r.kind]) end) then
    id, nameless, intent = served, false, RESUME
  end
end
if not own then
  -- 4. a request that was sent before the playback's release passes;
  mark = find('L', id)
  if mark and precedes(mark) then return answer(RELEASED) end
  -- 5. who resumes may be one of those whose end was forgotten, or was replaced and
  -- has started anew since, elsewhere.
  if intent == RESUME and (find('F', NOBODY) or find('P', id)) then intent = PLAY end
end

-- 6. What the guard will be needs room under every rule,
local new = {
  kind = 'G', id = id, created = now, refreshed = now, interval = interval, ttl = ttl, doubted = 0, flags = 0,
  returns = 0, node = node, client = client, stream = stream, device = device, labels = labels, extra = '',
}
if own then
  for name, was in pairs(own) do new[name] = was end
  if stream ~= '' and not (keeps and own.stream ~= '') then new.stream = stream end
  if device ~= '' then new.device = device end
  new.labels = labels
  for name, is in own.labels:gmatch('([^\31=]+)=([^\31]+)') do
    local label = name .. '=' .. is .. '\31'
    if new.labels == '' then label = '\31' .. label end
    if #new.labels + #label <= MAX_LABELS and not new.labels:find('\31' .. name .. '=', 1, true) then
      new.labels = new.labels .. label
    end
  end
end
local returns = returns_of(new)
local going, taken, vain, thrown_out, by, refusing, missing = make_room(own, new)
if lost and (refusing or #thrown_out > 0) then return refuse(lost) end
local lately = not refusing and #thrown_out > 0 and returns > MAX_RETURNS
if lately then refusing, also = by, 1 end
if refusing then
  local shown, blocking, free_in = in_the_way(new, refusing)
  if lately then return answer(REJECTED, shown, fight(new), refusing, blocking) end
  local wait
  doubted, wait = doubt(new, refusing, missing, going)
  return answer(wait and DOUBTED or REJECTED, shown, wait or free_in, refusing, blocking)
end
-- 7. and a new one needs room in the store, which keeps only so many of one user.
local left = held
for _ in pairs(going) do left = left - 1 end
if not own and left >= bound then return answer(UNCOUNTED) end

-- 8. A look leaves all as it is: its own guard stays where it is if another would
-- have to go.
if intent == LOOK then
  if not own then return answer(VACANT) end
  if left < held then new, taken, vain, thrown_out = own, {}, {}, {} end
end

-- 9. What has to go goes. The playbacks that lose their slots to another are refused.
for _, ids in ipairs({ taken, vain, thrown_out }) do
  for _, other in ipairs(ids) do replaced[#replaced + 1] = other end
end
over_before = #taken
if #replaced > 0 then finish('P', replaced, ttl, going) end

-- 10. Its own guard is refreshed, or a guard is born.
changed = true
if named then set(new, NAMED) end
if length == 1 then set(new, LONG) end
if length == 2 and is(new, LONG) then new.flags = bor(without(without(new.flags, LONG), NAMED), NAMELESS) end
if own then
  if not is(new, NAMED) or not nameless or is(new, CLOSED) then also = refresh(new, interval, ttl, node) end
  local _, i = find('G', id)
  records[i] = new
  return answer(REFRESHED, pack(new))
end
new.returns = returns
if nameless then set(new, NAMELESS) end
if intent == PLAY and (named or nameless) then set(new, UNPROVEN) end
mark = find('L', id)
if mark then mark.kind = 'B' end
mark = find('P', id)
if mark then set(mark, LIFTED) end
-- A guard is born here and, in short, above, and nowhere else: every rule that counts
-- it has room for it (6), unless its playback was admitted before and resumes; and no
-- user has more guards than a store keeps (7).
records[#records + 1] = new
return answer(ADMITTED, pack(new))
