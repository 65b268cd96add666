-- Store what a Celery client is told of a call, and tell those that wait for it. Celery writes key and
-- channel in this form, too, and never over a success.
-- KEYS  celery-task-meta-<task id>     ARGV  JSON, seconds that it is kept (0: for ever), 1: an end
-- Returns whether it was stored.
local stored = string.match(redis.call('GETRANGE', KEYS[1], 0, 30), '^{"status": "(%u+)"')
local ends = {SUCCESS = true, FAILURE = true, REVOKED = true}
if stored == 'SUCCESS' or (ends[stored] and ARGV[3] ~= '1') then return 0 end
if ARGV[2] == '0' then
  redis.call('SET', KEYS[1], ARGV[1])
else
  redis.call('SETEX', KEYS[1], ARGV[2], ARGV[1])
end
redis.call('PUBLISH', KEYS[1], ARGV[1])
return 1
