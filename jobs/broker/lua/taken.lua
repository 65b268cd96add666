-- Remember that a consumer's messages are taken away from it.
-- KEYS  taken                     ARGV  for how long (ms)
redis.call('DEL', KEYS[1])  -- a full server refuses a script whose first write adds
redis.call('SET', KEYS[1], 1, 'PX', ARGV[1])
