-- Put messages among the due ones, and wake a consumer, which then learns of the new time.
-- KEYS  due, bell, prefix of the metrics' keys (missing: none are kept)
-- ARGV  due time (ms), '<priority>|<message>', ...      (pairs)
local rings = redis.call('LLEN', KEYS[2])  -- a key of another type fails here, with nothing sent
for i = 1, #ARGV, 2 do
  redis.call('ZADD', KEYS[1], ARGV[i], ARGV[i + 1])
end
if rings < 64 then
  redis.call('LPUSH', KEYS[2], 1)
  redis.call('PEXPIRE', KEYS[2], 86400000)
end
local sent, metrics = #ARGV / 2, KEYS[3]
-- include sent.part
