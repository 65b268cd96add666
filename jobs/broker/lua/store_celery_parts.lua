-- Store how the members of a chord have ended, where Celery keeps that while it counts them.
-- KEYS  celery-taskset-meta-<group id>.j  ARGV  seconds that they are kept (0: for ever), place, part, ...
for i = 2, #ARGV, 2 do redis.call('ZADD', KEYS[1], ARGV[i], ARGV[i + 1]) end
if ARGV[1] ~= '0' then redis.call('EXPIRE', KEYS[1], ARGV[1]) end
