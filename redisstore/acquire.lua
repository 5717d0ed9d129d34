-- Admits a playback or says why not.
-- KEYS[1]  the user's key
-- ARGV     id, stream, device, intent, limit, interval, ttl, reclaim_lapsed
--          (16 bytes; names; guard.Intent; a count; milliseconds twice; 0 or 1)
-- Returns  outcome (guard.Outcome), now in milliseconds, the user's records

local id, stream, device = ARGV[1], ARGV[2], ARGV[3]
local intent, limit = tonumber(ARGV[4]), tonumber(ARGV[5])
local interval, ttl, reclaim = tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8] == '1'
local CONTINUE, LOOK, SHARE, RESUME = 1, 2, 3, 4
local ADMITTED, REFRESHED, VACANT, RELEASED, REJECTED, REVOKED = 1, 2, 3, 4, 5, 6

local function unchanged(outcome)
  return { outcome, now, encode() }
end

local function changed(outcome)
  return { outcome, now, write() }
end

local function refresh(r)
  r.expires, r.removed = now + interval, now + ttl
end

if find('R', id) then return unchanged(REVOKED) end

local own = find('G', id)
if own then
  refresh(own)
  if stream ~= '' then own.stream = stream end
  if device ~= '' then own.device = device end
  return changed(REFRESHED)
end

if intent == SHARE then
  local shared = false
  for _, r in ipairs(records) do
    if r.kind == 'G' and r.stream == stream and r.device == device then
      refresh(r)
      shared = true
    end
  end
  if shared then return changed(REFRESHED) end
end

local mark = find('L', id)
if mark then
  local recent = now - mark.created < SETTLE
  if intent == RESUME or recent and (intent == CONTINUE or intent == SHARE) then return unchanged(RELEASED) end
end
if intent == RESUME then limit = MAX_LIMIT end

local lapsed = {}
if reclaim then
  for _, r in ipairs(records) do
    if r.kind == 'G' and r.expires <= now then lapsed[#lapsed + 1] = r end
  end
  table.sort(lapsed, function(a, b) return a.expires < b.expires end)
end
if guards - #lapsed >= limit then return unchanged(REJECTED) end
if intent == LOOK then return unchanged(VACANT) end

for _, r in ipairs(lapsed) do
  if guards < limit then break end
  drop('G', r.id)
end
drop('L', id)
guards = guards + 1
records[#records + 1] = { kind = 'G', id = id, created = now, expires = now + interval, removed = now + ttl, stream = stream, device = device }
return changed(ADMITTED)
