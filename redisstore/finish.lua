-- Ending a guard.

local MAX_MARKS = 32 -- guard.MaxMarks

local RANK = { V = 3, L = 2, R = 1 }

-- Forgets the oldest look, or else release, or else revocation.
local function forget_mark()
  local at, first, first_size, first_rank = 2, nil, 0, 0
  while at <= #value do
    local stream, device, high, low = value:byte(at + 37, at + 40)
    local size = 41 + stream + device + high * 256 + low
    local rank = RANK[value:sub(at, at)] or 0
    if rank > first_rank then
      first, first_size, first_rank = at, size, rank
    end
    at = at + size
  end
  value = value:sub(1, first - 1) .. value:sub(first + first_size)
end

-- Frees the slot of a guard, leaves a mark of this kind for ttl and tells
-- everybody on the channel. Returns 1, or 0 where there was no guard.
local function finish(kind, id, ttl, channel)
  local at, size, is = locate(id)
  if is ~= 'G' then return 0 end
  value = value:sub(1, at - 1) .. value:sub(at + size) .. struct.pack('>c1c16I6I6I4I4BBI2', kind, id, now, now, 0, ttl, 0, 0, 0)
  if marks >= MAX_MARKS then forget_mark() end
  write(ttl)
  redis.pcall('PUBLISH', channel, id) -- a hint: without the right to it all else holds
  return 1
end
