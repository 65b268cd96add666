-- Give living consumers a lease that begins now, known to the queue or not.
-- KEYS  consumers                 ARGV  lease (ms), consumer, ...
local time = redis.call('TIME')
local ends = time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[1]
for i = 2, #ARGV do
  redis.call('ZREM', KEYS[1], ARGV[i])  -- a full server refuses a script whose first write adds
  redis.call('ZADD', KEYS[1], ends, ARGV[i])
end
