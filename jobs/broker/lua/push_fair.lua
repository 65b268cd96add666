-- Put messages on a queue whose tenants take turns, and wake one idle consumer for each.
-- KEYS  list, bell, fair, prefix of the metrics' keys (missing: none are kept)
-- ARGV  which list that is (from 0), message, ...      (at most 1,000 of them)
-- include tenants.part
local rings = redis.call('LLEN', KEYS[2])  -- a key of another type fails here, with nothing sent
for i = 2, #ARGV do
  local list, tenant = place_of(KEYS[3], ARGV[1], KEYS[1], ARGV[i])
  put('LPUSH', KEYS[3], ARGV[1], list, tenant, ARGV[i])
end
local sent, metrics = #ARGV - 1, KEYS[4]
for _ = 1, math.min(sent, 64 - rings) do
  redis.call('LPUSH', KEYS[2], 1)
end
if rings == 0 then redis.call('PEXPIRE', KEYS[2], 86400000) end
-- include sent.part
