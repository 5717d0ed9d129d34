-- Ending a guard.

local MAX_MARKS = 32 -- guard.MaxMarks

local RANK = { V = 3, L = 2, R = 1 }

-- Forgets the oldest look, or else release, or else revocation.
local function forget_mark()
  local at, first, first_after, first_rank = 2, nil, nil, 0
  while at <= #value do
    local kind, _, _, _, _, _, stream, device, labels, names = struct.unpack(RECORD, value, at)
    local after, rank = names + stream + device + labels, RANK[kind] or 0
    if rank > first_rank then
      first, first_after, first_rank = at, after, rank
    end
    at = after
  end
  value = value:sub(1, first - 1) .. value:sub(first_after)
end

-- Frees the slot of a guard, leaves a mark of this kind for ttl and tells
-- everybody on the channel. Returns 1, or 0 where there was no guard.
local function finish(kind, id, ttl, channel)
  local at, after, is = locate(id)
  if is ~= 'G' then return 0 end
  value = value:sub(1, at - 1) .. value:sub(after) .. struct.pack(RECORD, kind, id, now, now, 0, ttl, 0, 0, 0)
  if marks >= MAX_MARKS then forget_mark() end
  write(ttl)
  redis.pcall('PUBLISH', channel, id) -- a hint: without the right to it all else holds
  return 1
end
