-- A user's guards: a hash from guard id to "created:removed:stream".
-- KEYS[1] the user's key
-- ARGV[1] acquire, refresh or release; ARGV[2] guard id
-- ARGV[3] ttl in ms; ARGV[4] limit and ARGV[5] stream, for acquire
local verb, id = ARGV[1], ARGV[2]
if verb == 'release' then
	return redis.call('HDEL', KEYS[1], id)
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function keep(created, stream)
	redis.call('HSET', KEYS[1], id, string.format('%d:%d:%s', created, now + ARGV[3], stream))
	redis.call('PEXPIRE', KEYS[1], ARGV[3])
	return {now, created, stream}
end
local function read(value)
	local created, removed, stream = string.match(value, '^(%d+):(%d+):(.*)$')
	return tonumber(created), tonumber(removed), stream
end
if verb == 'refresh' then
	local value = redis.call('HGET', KEYS[1], id)
	if not value then
		return false
	end
	local created, removed, stream = read(value)
	if removed <= now then
		return false
	end
	return keep(created, stream)
end
local all, held = redis.call('HGETALL', KEYS[1]), 0
for i = 1, #all, 2 do
	local _, removed = read(all[i + 1])
	if removed <= now then
		redis.call('HDEL', KEYS[1], all[i])
	else
		held = held + 1
	end
end
if held >= tonumber(ARGV[4]) then
	return false
end
return keep(now, ARGV[5])
