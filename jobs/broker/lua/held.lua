-- Look up which deliveries a consumer still holds.
-- KEYS  inflight                  ARGV  number, ...
-- Returns 1 or 0 for each.
local answer = {}
for i, number in ipairs(ARGV) do answer[i] = redis.call('HEXISTS', KEYS[1], number) end
return answer
