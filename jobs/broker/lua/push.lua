-- Put messages on a queue and wake one idle consumer for each.
-- KEYS  list, bell        ARGV  message, ...      (at most 1,000 of them)
redis.call('LPUSH', KEYS[1], unpack(ARGV))
for _ = 1, math.min(#ARGV, 64 - redis.call('LLEN', KEYS[2])) do
  redis.call('LPUSH', KEYS[2], 1)
end
