-- Move one waiting message into flight under an operator, even from a paused queue.
-- KEYS  inflight, consumers, list
-- ARGV  consumer, lease (ms), number of the delivery, message
-- Returns 1, or 0 when it isn't there. The only script that searches a list: LREM starts at the end
-- that is popped next.
if redis.call('LREM', KEYS[3], -1, ARGV[4]) == 0 then return 0 end
local time = redis.call('TIME')
redis.call('HSET', KEYS[1], ARGV[3], ARGV[4])
redis.call('ZADD', KEYS[2], time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[2], ARGV[1])
return 1
