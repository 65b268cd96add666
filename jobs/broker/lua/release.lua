-- Give deliveries back to the end of the queue that is popped next, if they are still held; those
-- of a tenant come first among its own.
-- KEYS  inflight, bell, fair, list, ...                        (one for each priority step)
-- ARGV  number, which list (from 0), new message or '' to keep it, ...  (triples, newest first)
-- Returns how many were still held.
-- include tenants.part
local held = 0
for i = 1, #ARGV, 3 do
  local message = redis.call('HGET', KEYS[1], ARGV[i])
  if message then
    if ARGV[i + 2] ~= '' then message = ARGV[i + 2] end
    local place = ARGV[i + 1]
    local list, tenant = place_of(KEYS[3], place, KEYS[4 + place], message)
    redis.call('HDEL', KEYS[1], ARGV[i])  -- first: a full server lets it go on from there
    put('RPUSH', KEYS[3], place, list, tenant, message)
    held = held + 1
  end
end
for _ = 1, math.min(held, 64 - redis.call('LLEN', KEYS[2])) do
  redis.call('LPUSH', KEYS[2], 1)
end
redis.call('PEXPIRE', KEYS[2], 86400000)
return held
