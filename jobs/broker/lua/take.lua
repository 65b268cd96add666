-- Move waiting messages into flight under an operator, even from a paused queue.
-- KEYS  inflight, consumers, list, ...
-- ARGV  consumer, lease (ms), number of the first delivery, limit (at most 500)
-- Returns {message, index of its list from 0, ...}
local number, limit = tonumber(ARGV[3]), tonumber(ARGV[4])
local answer, held = {}, {}

for list = 3, #KEYS do
  local left = limit - #held / 2
  if left == 0 then break end
  for _, message in ipairs(redis.call('RPOP', KEYS[list], left) or {}) do
    answer[#answer + 1] = message
    answer[#answer + 1] = list - 3
    held[#held + 1] = number
    held[#held + 1] = message
    number = number + 1
  end
end

if #held > 0 then
  local time = redis.call('TIME')
  redis.call('HSET', KEYS[1], unpack(held))
  redis.call('ZADD', KEYS[2], time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[2], ARGV[1])
end
return answer
