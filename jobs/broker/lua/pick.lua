-- Move one waiting message into flight under an operator, even from a paused queue.
-- KEYS  inflight, consumers, fair, list
-- ARGV  consumer, lease (ms), number of the delivery, message, which list that is (from 0)
-- Returns 1, or 0 when it isn't there. The only script that searches a list: LREM starts at the end
-- that is popped next.
-- include tenants.part
local list, tenant = place_of(KEYS[3], ARGV[5], KEYS[4], ARGV[4])
if redis.call('LREM', list, -1, ARGV[4]) == 0 then
  -- A worker that doesn't know tenants yet puts their messages on the plain list.
  if not tenant or redis.call('LREM', KEYS[4], -1, ARGV[4]) == 0 then return 0 end
elseif tenant then
  local turns = KEYS[3] .. ':' .. ARGV[5]
  if redis.call('EXISTS', list) == 0 then redis.call('ZREM', turns, tenant) end
  if redis.call('ZCARD', turns) > 1 then
    redis.call('HINCRBY', KEYS[3], ARGV[5], -1)
  else  -- only the plain list is left
    redis.call('DEL', turns)
    redis.call('HDEL', KEYS[3], ARGV[5])
  end
end
local time = redis.call('TIME')
redis.call('HSET', KEYS[1], ARGV[3], ARGV[4])
redis.call('ZADD', KEYS[2], time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[2], ARGV[1])
return 1
