-- Answer a client of Celery, which waits at a list of its own. 0 when that has too many answers.
-- KEYS  the list   ARGV  answer, most, for how long (s)
if redis.call('LLEN', KEYS[1]) >= tonumber(ARGV[2]) then return 0 end
redis.call('LPUSH', KEYS[1], ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1
