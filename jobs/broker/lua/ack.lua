-- Remove finished deliveries and notify those who wait for results.
-- KEYS  inflight          ARGV  channel prefix, how many numbers, number, ..., task id, ...
-- Returns how many of the deliveries were still held.
local count = tonumber(ARGV[2])
local held = 0
if count > 0 then held = redis.call('HDEL', KEYS[1], unpack(ARGV, 3, 2 + count)) end
for i = 3 + count, #ARGV do
  redis.call('PUBLISH', ARGV[1] .. ARGV[i], 1)
end
return held
