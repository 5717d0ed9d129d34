-- A user's records as tables, for scripts that do more than extend a time.

local records = {}

local at = 2
while at <= #value do
  local r, stream, device, labels = {}
  r.kind, r.id, r.created, r.refreshed, r.interval, r.ttl, stream, device, labels, at = struct.unpack(RECORD, value, at)
  r.stream = value:sub(at, at + stream - 1)
  r.device = value:sub(at + stream, at + stream + device - 1)
  at = at + stream + device + labels
  r.labels = value:sub(at - labels, at - 1)
  records[#records + 1] = r
  r.place = #records
end

local function find(kind, id)
  for i, r in ipairs(records) do
    if r.kind == kind and r.id == id then return r, i end
  end
end

local function drop(kind, id)
  local _, i = find(kind, id)
  if i then table.remove(records, i) end
end

-- Writes the records, of which one lives for ttl, and returns them.
local function save(id, ttl)
  local parts = { '1' }
  for i, r in ipairs(records) do
    parts[i + 1] = struct.pack(RECORD, r.kind, r.id, r.created, r.refreshed, r.interval, r.ttl, #r.stream, #r.device, #r.labels)
      .. r.stream .. r.device .. r.labels
  end
  value = table.concat(parts)
  locate(id)
  write(ttl)
  return value
end
