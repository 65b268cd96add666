-- Keep how a worker or a child ended. For a worker, 0 and no change when it has no report any more.
-- KEYS  gone, workers, reported   ARGV  text, worker or '', most, for how long (s)
if ARGV[2] ~= '' then
  redis.call('ZREM', KEYS[3], ARGV[2])
  if redis.call('HDEL', KEYS[2], ARGV[2]) == 0 then return 0 end
end
redis.call('LTRIM', KEYS[1], 0, ARGV[3] - 2)  -- a full server refuses a script whose first write adds
redis.call('LPUSH', KEYS[1], ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[4])
return 1
