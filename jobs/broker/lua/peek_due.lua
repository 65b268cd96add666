-- Look at messages that are due at a time or later.
-- KEYS  due               ARGV  time (ms), how many of them to skip, how many to return
-- Returns {'<priority>|<message>', due time (ms), ...}
local first = redis.call('ZCOUNT', KEYS[1], '-inf', '(' .. ARGV[1]) + ARGV[2]
return redis.call('ZRANGE', KEYS[1], first, first + ARGV[3] - 1, 'WITHSCORES')
