-- Make the messages due now that are due at these times, and wake a consumer for each.
-- KEYS  due, bell         ARGV  time (ms), ...
-- A time may be 1 ms late, since it was converted to seconds and back.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local woken = 0
for _, at in ipairs(ARGV) do
  if tonumber(at) > now then
    for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], at, at + 1, 'LIMIT', 0, 100)) do
      redis.call('ZADD', KEYS[1], now, member)
      woken = woken + 1
    end
  end
end
for _ = 1, math.min(woken, 64 - redis.call('LLEN', KEYS[2])) do redis.call('LPUSH', KEYS[2], 1) end
redis.call('PEXPIRE', KEYS[2], 86400000)
return woken
