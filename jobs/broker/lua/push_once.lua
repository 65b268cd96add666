-- Put a message on a queue of Celery's workers, unless that was done before; these hear no bell.
-- KEYS  list, mark of what was handed over, prefix of the metrics' keys (missing: none are kept)
-- ARGV  message
if redis.call('EXISTS', KEYS[2]) == 1 then return end
redis.call('LPUSH', KEYS[1], ARGV[1])  -- a key of another type fails here, with nothing sent
redis.call('SET', KEYS[2], 1, 'PX', 3600000)
local sent, metrics = 1, KEYS[3]
-- include sent.part
