-- The room for a guard, by the arguments of acquire: rules, intent, reclaim, ttl.

-- What a rule goes by; '' is beyond it.
local function of(r, per)
  if per == '' then return 'all' end
  if per == 'stream' or per == 'device' then return r[per] end
  return r.labels:match('\31' .. per .. '=([^\31]*)') or ''
end

local function expires(r) return r.refreshed + r.interval end

-- Refuses the guard new by the n-th rule: what acquire returns then.
local function refuse(new, n, limit)
  local ends, shown = {}, {}
  for _, r in ipairs(records) do
    if r.kind == 'G' and r.id ~= new.id and of(r, rules[n].per) == of(new, rules[n].per) then
      ends[#ends + 1] = reclaim and expires(r) or r.refreshed + r.ttl
      if #ends <= MAX_IN_THE_WAY then shown[#ends] = pack(r) end
    end
  end
  local free_in = ttl
  if limit >= 1 and limit <= #ends then
    table.sort(ends)
    free_in = ends[#ends - limit + 1] - now
  end
  return { REJECTED, now, held, table.concat(shown), free_in, n, #ends }
end

-- Finds what has to go before every rule allows the guard new, which was own
-- before, or is new where own is nil: the longest lapsed where lapsed guards may
-- lose their slots, then the oldest where a start replaces them. It changes
-- nothing. Returns what goes, the ids of those that are replaced, and where all
-- that is not enough the refusal.
local function make_room(own, new)
  local going, replaced = {}, {}
  if not own and intent == RESUME then return going, replaced end -- an admitted viewer stays admitted
  for n, rule in ipairs(rules) do
    local is = of(new, rule.per)
    if rule.limit ~= UNLIMITED and is ~= '' and not (own and of(own, rule.per) == is) then
      local limit = math.min(rule.limit, MAX_LIMIT)
      local excess, lapsed, place, others = 1 - limit, {}, {}, {}
      for _, r in ipairs(records) do
        if r.kind == 'G' and r ~= own and not going[r] and of(r, rule.per) == is then
          excess = excess + 1
          if reclaim and expires(r) <= now then
            lapsed[#lapsed + 1] = r
            place[r] = #lapsed
          elseif rule.at_limit == REPLACE_OLDEST or rule.at_limit == REPLACE_DEVICE and new.device ~= '' and r.device == new.device then
            others[#others + 1] = r
          end
        end
      end
      table.sort(lapsed, function(a, b)
        if expires(a) ~= expires(b) then return expires(a) < expires(b) end
        return place[a] < place[b]
      end)
      for _, r in ipairs(lapsed) do
        if excess <= 0 then break end
        going[r], excess = true, excess - 1
      end
      for _, r in ipairs(others) do
        if excess <= 0 or intent ~= START and intent ~= LOOK then break end
        going[r], excess = true, excess - 1
        replaced[#replaced + 1] = r.id
      end
      if excess > 0 then return nil, nil, refuse(new, n, limit) end
    end
  end
  return going, replaced
end
