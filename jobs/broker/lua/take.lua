-- Move waiting messages into flight under an operator, even from a paused queue.
-- KEYS  inflight, consumers, fair, list, ...
-- ARGV  consumer, lease (ms), number of the first delivery, limit (at most 500)
-- Returns {message, index of its list from 0, ...}
-- include tenants.part
local number, limit = tonumber(ARGV[3]), tonumber(ARGV[4])
local answer, held, fair = {}, {}, {}
for _, place in ipairs(redis.call('HKEYS', KEYS[3])) do fair[tonumber(place)] = true end

for list = 4, #KEYS do
  local left = limit - #held / 2
  if left == 0 then break end
  local place, messages = list - 4, nil
  if fair[place] then
    messages = take_turns(KEYS[3], place, KEYS[list], left)
  else
    messages = redis.call('RPOP', KEYS[list], left)
  end
  for _, message in ipairs(messages or {}) do
    answer[#answer + 1] = message
    answer[#answer + 1] = place
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
