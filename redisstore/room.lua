-- The room for a guard, by the arguments of acquire: rules, intent, client,
-- patience, waited, reclaim, ttl.

-- What a rule goes by; '' is beyond it.
local function of(r, per)
  if per == '' then return 'all' end
  if per == 'stream' or per == 'device' then return r[per] end
  if per == 'client' then return r.client == 0 and '' or r.client end
  return r.labels:match('\31' .. per .. '=([^\31]*)') or ''
end

local function expires(r) return r.refreshed + r.interval end
local function doubted_at(r) return r.refreshed + r.doubted - 1 end

local function alike(a, b) return a == '' or b == '' or a == b end

-- Whether two guards may be one viewer's.
local function same(a, b) return a.client == b.client and a.stream == b.stream and alike(a.device, b.device) end

-- The guards beside the guard new that the n-th rule counts with it.
local function beside(new, n)
  local per, counted = rules[n].per, {}
  local what = of(new, per)
  for _, r in ipairs(records) do
    if r.kind == 'G' and r.id ~= new.id and of(r, per) == what then counted[#counted + 1] = r end
  end
  return counted
end

-- Whether a start may take the slot of a guard: of a closed one, or a lapsed one.
local function closed(r) return r.interval == 0 and is(r, CLOSED) end
local function may_take(r)
  return reclaim ~= RECLAIM_OFF and r.refreshed + r.interval <= now and (reclaim == RECLAIM_LAPSED or closed(r))
end

-- Finds what has to go before every rule allows the guard new, which was own
-- before, or is new where own is nil: closed guards and then lapsed ones, as far as
-- those may lose their slots, the longest over first; then those that were doubted for
-- long enough; then the oldest where a start replaces them. It changes nothing. Returns
-- what goes, with the flags that its mark is to have; of that the ids that are closed or
-- lapsed, those that were doubted in vain, those that a rule replaces; the last such
-- rule; and where all that is not enough the rule that refuses, and how many are missing.
local function make_room(own, new)
  local going, taken, vain, thrown_out, by = {}, {}, {}, {}
  if not own and intent == RESUME then return going, taken, vain, thrown_out end -- an admitted viewer stays admitted
  for n, rule in ipairs(rules) do
    local what = of(new, rule.per)
    if held >= rule.limit and what ~= '' and not (own and of(own, rule.per) == what) then
      local excess, others, takeable, place = 1 - rule.limit, {}, {}, {}
      for _, r in ipairs(beside(new, n)) do
        if not going[r] then
          excess = excess + 1
          others[#others + 1] = r
          if may_take(r) then
            takeable[#takeable + 1] = r
            place[r] = #takeable
          end
        end
      end
      if #takeable > 1 then
        table.sort(takeable, function(a, b)
          if closed(a) ~= closed(b) then return closed(a) end
          if expires(a) ~= expires(b) then return expires(a) < expires(b) end
          return place[a] < place[b]
        end)
      end
      local function goes(r, where, flag)
        going[r], excess, where[#where + 1] = flag, excess - 1, r.id
      end
      local function replaces(r)
        return rule.at_limit == REPLACE_OLDEST or rule.at_limit == REPLACE_DEVICE and new.device ~= '' and r.device == new.device
      end
      for _, r in ipairs(takeable) do
        if excess > 0 then goes(r, taken, replaces(r) and 0 or TAKEN) end
      end
      for _, r in ipairs(others) do
        if excess > 0 and not going[r] and patience > 0 and r.doubted > 0 and same(r, new) and doubted_at(r) + patience <= now then
          goes(r, vain, 0)
        end
      end
      for _, r in ipairs(others) do
        if excess > 0 and not going[r] and intent ~= RESUME and replaces(r) then
          goes(r, thrown_out, client ~= 0 and r.client ~= 0 and client ~= r.client and WATCHED or 0)
          by = n
        end
      end
      if excess > 0 then return going, taken, vain, thrown_out, by, n, excess end
    end
  end
  return going, taken, vain, thrown_out, by
end

-- What a refusal by the n-th rule says of the guards in the way of the guard new:
-- the oldest, how many there are, and in how many milliseconds there is room.
local function in_the_way(new, n)
  local guards, limit = beside(new, n), rules[n].limit
  local ends, shown, free_in = {}, {}, ttl
  for i, r in ipairs(guards) do
    ends[i] = (reclaim == RECLAIM_LAPSED or may_take(r)) and expires(r) or over(r) -- guard.Policy.SlotEnds
    if i <= MAX_IN_THE_WAY then shown[i] = value:sub(r.start, r.after - 1) end
  end
  if limit >= 1 and limit <= #ends then
    table.sort(ends)
    free_in = ends[#ends - limit + 1] - now
  end
  return table.concat(shown), #guards, free_in
end

-- How often playbacks of the guard's stream have come back after others had thrown them
-- out, with this one.
local function returns_of(new)
  local returns = 0
  for _, r in ipairs(records) do
    if r.kind == 'P' and r.stream == new.stream and not is(r, TAKEN) then
      returns = math.max(returns, math.min(r.returns, MAX_RETURNS) + (is(r, WATCHED) and 1 or 0))
    end
  end
  return returns
end

-- Keeps the marks that refuse a playback because it would throw out another once
-- too often. Returns in how many milliseconds the last of them is over.
local function fight(new)
  local standing = 0
  for _, r in ipairs(records) do
    if r.kind == 'P' and r.stream == new.stream and not is(r, TAKEN) and is(r, WATCHED) and r.returns >= MAX_RETURNS then
      stay(r, ttl)
      standing = math.max(standing, over(r) - now)
    end
  end
  return standing
end

-- Doubts the guards in the way of the guard new that may be the same viewer's, and
-- over, unless all of them are fewer than are missing. Returns the ids of those that
-- were not doubted before, and for how many milliseconds the start has to wait, or nil.
local function doubt(new, n, missing, going)
  local perhaps, ids, waits = {}, {}, {}
  if patience == 0 or new.client == 0 or new.stream == '' then return ids end
  for _, r in ipairs(beside(new, n)) do
    if not is(r, LONG) and same(r, new) and not going[r] and (r.doubted > 0 or not waited) then perhaps[#perhaps + 1] = r end
  end
  if #perhaps < missing then return ids end
  for i, r in ipairs(perhaps) do
    if r.doubted == 0 then
      r.doubted, changed = now - r.refreshed + 1, true
      ids[#ids + 1], news[#news + 1] = r.id, r.id
    end
    waits[i] = doubted_at(r) + patience - now
  end
  table.sort(waits)
  return ids, waits[missing]
end
