-- Register messages that wait for a slot; a slot that is free is reserved for one at once.
-- KEYS  held, waiting
-- ARGV  how many slots there are, for how long one is reserved (ms), due time (ms),
--       queue, holder, ...                                        (triples)
-- Returns {waiter, the time it is due at (ms), ...} of those for whom one is reserved.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
local free = ARGV[1] - redis.call('ZCARD', KEYS[1])
local answer, last = {}, 0
for i = 3, #ARGV, 3 do
  local due, holder = ARGV[i], ARGV[i + 2]
  local waiter = ARGV[i + 1] .. '\6' .. holder
  local mine = redis.call('ZSCORE', KEYS[1], holder)
  if mine or free > 0 then
    if not mine then
      redis.call('ZADD', KEYS[1], now + ARGV[2], holder)
      free = free - 1
    end
    answer[#answer + 1] = waiter
    answer[#answer + 1] = due
  else
    redis.call('ZADD', KEYS[2], due, waiter)
    last = math.max(last, due)
  end
end
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
local left = math.max(0, last - now) + 60000
if redis.call('PTTL', KEYS[2]) < left then redis.call('PEXPIRE', KEYS[2], left) end
return answer
