-- Replace a delivery by a message due later, if it is still held.
-- KEYS  inflight, due, bell       ARGV  number, due time (ms), '<priority>|<message>'
redis.call('ZCARD', KEYS[2])  -- a key of another type fails here, with nothing lost
if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('ZADD', KEYS[2], ARGV[2], ARGV[3])
if redis.call('LLEN', KEYS[3]) < 64 then redis.call('LPUSH', KEYS[3], 1) end
redis.call('PEXPIRE', KEYS[3], 86400000)
return 1
