-- End a pause, make parked messages due, and wake consumers for what can be handed out.
-- KEYS  paused, due, bell, fair, list, ...
-- ARGV  task or '' for the queue, PARKED (ms), most parked messages to make due
-- Returns {whether it was paused, how many parked messages are due now}
local was = redis.call('HDEL', KEYS[1], ARGV[1])
local parked = {}
if ARGV[1] ~= '' then
  parked = redis.call('ZRANGEBYSCORE', KEYS[2], ARGV[2], '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[3])
end
for i = 1, #parked, 2 do
  -- Due at the time when they were parked, so they keep their order.
  redis.call('ZADD', KEYS[2], parked[i + 1] - ARGV[2], parked[i])
end
-- Count what is due later as well: claims didn't learn of its time while the queue was paused.
local waiting = redis.call('ZCARD', KEYS[2])
for list = 5, #KEYS do waiting = waiting + redis.call('LLEN', KEYS[list]) end
for _, count in ipairs(redis.call('HVALS', KEYS[4])) do waiting = waiting + count end
for _ = 1, math.min(waiting, 64 - redis.call('LLEN', KEYS[3])) do
  redis.call('LPUSH', KEYS[3], 1)
end
redis.call('PEXPIRE', KEYS[3], 86400000)
return {was, #parked / 2}
