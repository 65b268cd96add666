-- Leave a command for a worker.
-- KEYS  commands                  ARGV  text, most, for how long (ms)
redis.call('LTRIM', KEYS[1], 1 - ARGV[2], -1)  -- a full server refuses a script whose first write adds
redis.call('RPUSH', KEYS[1], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
