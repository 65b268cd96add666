-- Replace a worker's report, and note when it came; without a text, delete both.
-- KEYS  workers, reported         ARGV  worker[, text, for how long (s)]
redis.call('ZREM', KEYS[2], ARGV[1])  -- a full server refuses a script whose first write adds
if #ARGV == 1 then
  redis.call('HDEL', KEYS[1], ARGV[1])
  return
end
local time = redis.call('TIME')
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[2], time[1] * 1000 + math.floor(time[2] / 1000), ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[3])
redis.call('EXPIRE', KEYS[2], ARGV[3])
