-- Remember that a task is revoked, and forget expired revocations.
-- KEYS  revoked                   ARGV  task id, for how long (ms), 't' to terminate it or ''
-- Members are ids; a task to terminate has a second one with 't:' in front.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
if ARGV[3] ~= '' then redis.call('ZADD', KEYS[1], now + ARGV[2], 't:' .. ARGV[1]) end
-- The key expires with its last member.
local last = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')[2]
redis.call('PEXPIREAT', KEYS[1], math.ceil(last) + 1000)
