-- Have what is due at these times be due now, and wake a consumer for each.
-- KEYS  due, bell         ARGV  time (ms), ...
-- On its way through seconds a time may have become one later.
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
