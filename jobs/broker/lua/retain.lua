-- Give consumers that hold messages a lease that begins now, and forget those that hold none.
-- KEYS  consumers, inflight, ...  (one for each consumer)     ARGV  lease (ms), consumer, ...
local time = redis.call('TIME')
local ends = time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[1]
for i = 2, #ARGV do
  redis.call('ZREM', KEYS[1], ARGV[i])  -- a full server refuses a script whose first write adds
  if redis.call('EXISTS', KEYS[i]) == 1 then redis.call('ZADD', KEYS[1], ends, ARGV[i]) end
end
