-- `ack`, on a node of a Cluster. It notifies all: those who wait may be subscribed on other nodes, to
-- which the server passes it on, and this node doesn't know of them.
-- KEYS  inflight          ARGV  channel prefix, how many ranges of numbers,
--       first number, last number, ..., task id, ...
-- Returns how many of the deliveries were still held.
local ids = 3 + 2 * ARGV[2]  -- the index of the first
local numbers, held = {}, 0
for i = 3, ids - 1, 2 do
  for number = tonumber(ARGV[i]), tonumber(ARGV[i + 1]) do numbers[#numbers + 1] = number end
end
if #numbers > 0 then held = redis.call('HDEL', KEYS[1], unpack(numbers)) end
for i = ids, #ARGV do redis.call('PUBLISH', ARGV[1] .. ARGV[i], 1) end
return held
