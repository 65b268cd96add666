-- Forget a consumer that holds nothing.
-- KEYS  inflight, consumers       ARGV  consumer
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
return redis.call('ZREM', KEYS[2], ARGV[1])
