-- Put deliveries of paused tasks among the due ones, if they are still held.
-- KEYS  inflight, due, paused     ARGV  PARKED (ms), number, priority, task, ...
-- Returns the numbers of those that were parked. ARGV has triples; a task that isn't paused is skipped.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local parked = {}
redis.call('ZCARD', KEYS[2])  -- a key of another type fails here, with nothing lost
for i = 2, #ARGV, 3 do
  local message = redis.call('HEXISTS', KEYS[3], ARGV[i + 2]) == 1
    and redis.call('HGET', KEYS[1], ARGV[i])
  if message then
    redis.call('HDEL', KEYS[1], ARGV[i])  -- first: a full server lets it go on from there
    redis.call('ZADD', KEYS[2], ARGV[1] + now, ARGV[i + 1] .. '|' .. message)
    parked[#parked + 1] = ARGV[i]
  end
end
return parked
