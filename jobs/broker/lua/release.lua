-- Give deliveries back to the end of the queue that is popped next, if they are still held.
-- KEYS  list 0, list 3, list 6, list 9, inflight, bell
-- ARGV  number, priority, new message or '' to keep it, ...      (triples, the newest first)
-- Returns how many were still held.
local held = 0
for i = 1, #ARGV, 3 do
  local message = redis.call('HGET', KEYS[5], ARGV[i])
  if message then
    if ARGV[i + 2] ~= '' then message = ARGV[i + 2] end
    local list = KEYS[1 + math.floor(ARGV[i + 1] / 3)]
    redis.call('LLEN', list)              -- a key of another type fails here, with nothing lost
    redis.call('HDEL', KEYS[5], ARGV[i])  -- first: a full server lets it go on from there
    redis.call('RPUSH', list, message)
    held = held + 1
  end
end
for _ = 1, math.min(held, 64 - redis.call('LLEN', KEYS[6])) do
  redis.call('LPUSH', KEYS[6], 1)
end
return held
