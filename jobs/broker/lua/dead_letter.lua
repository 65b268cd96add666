-- Move a delivery to the dead letters, if it is still held.
-- KEYS  inflight, dead            ARGV  number, reason, worker
local message = redis.call('HGET', KEYS[1], ARGV[1])
if not message then return 0 end
redis.call('XLEN', KEYS[2])           -- a key of another type fails here, with nothing lost
redis.call('HDEL', KEYS[1], ARGV[1])  -- first: a full server lets it go on from there
redis.call('XADD', KEYS[2], '*', 'reason', ARGV[2], 'worker', ARGV[3], 'message', message)
return 1
