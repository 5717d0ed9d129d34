-- Takes back what a claim of media made, if nothing else was asked under the guard.
-- KEYS[1]  the user's key
-- ARGV     id, replaced, channel (16 bytes; so many for each guard that it replaced;
--          where it is published)
-- Returns  1, or 0 where there was no such guard

local id, replaced, channel = ARGV[1], ARGV[2], ARGV[3]

local _, _, kind = locate(id)
if kind ~= 'G' then return 0 end
--- ledger.lua: the rest is done on tables.

read()
local made = find('G', id)
if not is(made, UNPROVEN) then return 0 end
local mark = find('B', id)
if mark then mark.kind = 'L' end
-- The slots of those that it replaced may be somebody else's by now: they may start,
-- not resume.
for at = 1, #replaced, 16 do
  mark = find('P', replaced:sub(at, at + 15))
  if mark and mark.created == made.created then
    mark.flags = bor(without(mark.flags, WATCHED), LIFTED)
  end
end
drop(function(r) return r == made end)
changed, news = true, { id }
save(channel)
return 1
