-- Does what every verb does, on a key that is no user's.
-- KEYS[1]  the key, for which others have no use
-- Returns  1

redis.call('TIME')
redis.call('GET', KEYS[1])
redis.call('SET', KEYS[1], '2', 'PX', 1000)
return 1
