-- Put messages on a queue and wake one idle consumer for each.
-- KEYS  list, bell, prefix of the metrics' keys (missing: none are kept)
-- ARGV  message, ...      (at most 1,000 of them)
local rings = redis.call('LLEN', KEYS[2])  -- a key of another type fails here, with nothing sent
redis.call('LPUSH', KEYS[1], unpack(ARGV))
for _ = 1, math.min(#ARGV, 64 - rings) do
  redis.call('LPUSH', KEYS[2], 1)
end
if rings == 0 then redis.call('PEXPIRE', KEYS[2], 86400000) end
local sent, metrics = #ARGV, KEYS[3]
-- include sent.part
