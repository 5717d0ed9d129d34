-- Lists a user's guards, writing nothing.
-- KEYS[1]  the user's key
-- ARGV     none
-- Returns  now in milliseconds, the user's value

return { now, value }
