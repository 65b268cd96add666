-- Give slots back, and reserve each free one for the holder that has waited longest.
-- KEYS  held, waiting
-- ARGV  how many slots there are, for how long one is reserved (ms), holder, ...
-- Returns {waiter, the time it is due at (ms), ...} of those for whom one is reserved.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for i = 3, #ARGV do redis.call('ZREM', KEYS[1], ARGV[i]) end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - 60000)
local free = ARGV[1] - redis.call('ZCARD', KEYS[1])
if free <= 0 then return {} end
local answer = redis.call('ZPOPMIN', KEYS[2], free)
for i = 1, #answer, 2 do
  local split = string.find(answer[i], '\6', 1, true)
  redis.call('ZADD', KEYS[1], now + ARGV[2], string.sub(answer[i], split + 1))
end
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return answer
