-- `ack`, on a node of a Cluster. It notifies all: those who wait may be subscribed on other nodes, to
-- which the server passes it on, and this node doesn't know of them.
-- KEYS  inflight          ARGV  channel prefix, how many numbers, number, ..., task id, ...
-- Returns how many of the deliveries were still held.
local count = tonumber(ARGV[2])
local held = 0
if count > 0 then held = redis.call('HDEL', KEYS[1], unpack(ARGV, 3, 2 + count)) end
for i = 3 + count, #ARGV do redis.call('PUBLISH', ARGV[1] .. ARGV[i], 1) end
return held
