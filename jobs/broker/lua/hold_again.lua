-- Put deliveries that a consumer works on back into flight, if the server has lost them.
-- KEYS  inflight, taken, consumers, claimed
-- ARGV  consumer, lease (ms), number of its next delivery, number, message, ...  (pairs)
-- Returns how many were missing; 0 when its messages were given to others.
if redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
local added = 0
for i = 4, #ARGV, 2 do
  added = added + redis.call('HSETNX', KEYS[1], ARGV[i], ARGV[i + 1])
end
if added > 0 and not redis.call('ZSCORE', KEYS[3], ARGV[1]) then
  local time = redis.call('TIME')
  redis.call('ZADD', KEYS[3], time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[2], ARGV[1])
end
if tonumber(redis.call('GET', KEYS[4]) or 0) < tonumber(ARGV[3]) then
  redis.call('SET', KEYS[4], ARGV[3], 'PX', 86400000)
end
return added
