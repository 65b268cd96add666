-- Move one message that waits into flight under an operator, whether the queue is paused or not.
-- KEYS  inflight, consumers, list
-- ARGV  consumer, lease (ms), number of the delivery, message
-- Returns 1, or 0 when it isn't there. The one script that looks through a list, in the server's
-- own LREM: from the end that is popped next.
if redis.call('LREM', KEYS[3], -1, ARGV[4]) == 0 then return 0 end
local time = redis.call('TIME')
redis.call('HSET', KEYS[1], ARGV[3], ARGV[4])
redis.call('ZADD', KEYS[2], time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[2], ARGV[1])
return 1
