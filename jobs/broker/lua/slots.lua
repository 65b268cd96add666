-- Take slots of a concurrency limit, or return when to ask again.
-- KEYS  held, waiting
-- ARGV  how many slots there are, for how long one is held (ms),
--       delay until asking again (ms), more of it for each that waits, the longest delay,
--       queue, holder, ...                                        (pairs)
-- Returns for each 0 for a slot, or the time at which to ask again (ms).
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
-- Holders that are long overdue to ask again are gone.
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - 60000)
local free = ARGV[1] - redis.call('ZCARD', KEYS[1])
local waiting = redis.call('ZCARD', KEYS[2])
local answer = {}
for i = 6, #ARGV, 2 do
  local queue, holder = ARGV[i], ARGV[i + 1]
  local mine = redis.call('ZREM', KEYS[1], holder)
  waiting = waiting - redis.call('ZREM', KEYS[2], queue .. '\6' .. holder)
  if mine == 1 or free > 0 then
    redis.call('ZADD', KEYS[1], now + ARGV[2], holder)
    free = free - 1 + mine
    answer[#answer + 1] = 0
  else
    answer[#answer + 1] = now + math.min(ARGV[5], ARGV[3] + ARGV[4] * waiting)
    waiting = waiting + 1
  end
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return answer
