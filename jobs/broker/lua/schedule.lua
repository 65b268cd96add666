-- Put messages among the due ones, and wake a consumer so that it learns of the new time.
-- KEYS  due, bell         ARGV  due time (ms), '<priority>|<message>', ...      (pairs)
for i = 1, #ARGV, 2 do
  redis.call('ZADD', KEYS[1], ARGV[i], ARGV[i + 1])
end
if redis.call('LLEN', KEYS[2]) < 64 then
  redis.call('LPUSH', KEYS[2], 1)
end
