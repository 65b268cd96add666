-- Ring a bell once more, which a consumer has heard that can't come.
-- KEYS  bell             ARGV  none
if redis.call('LLEN', KEYS[1]) < 64 then redis.call('LPUSH', KEYS[1], 1) end
redis.call('PEXPIRE', KEYS[1], 86400000)
