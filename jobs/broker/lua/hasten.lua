-- Make a message of the due ones due now, and wake a consumer for it.
-- KEYS  due, bell         ARGV  '<priority>|<message>'
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then return 0 end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
-- LT: a message that is due already keeps its place.
redis.call('ZADD', KEYS[1], 'LT', now, ARGV[1])
if redis.call('LLEN', KEYS[2]) < 64 then redis.call('LPUSH', KEYS[2], 1) end
redis.call('PEXPIRE', KEYS[2], 86400000)
return 1
