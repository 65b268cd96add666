-- Look at messages in flight. Bounded by the number of consumers, and by what one consumer holds.
-- KEYS  consumers
-- ARGV  prefix of inflight keys, place of the first, from 0, how many
-- Returns {consumer, number, message, ...}, by consumer, then by number
-- The inflight keys carry the queue's hash tag, so they are in the slot of the key declared.
local skip, left = tonumber(ARGV[2]), tonumber(ARGV[3])
local consumers = redis.call('ZRANGE', KEYS[1], 0, 999)
table.sort(consumers)
local answer = {}
for _, consumer in ipairs(consumers) do
  if left == 0 then break end
  local held = redis.call('HLEN', ARGV[1] .. consumer)
  if skip >= held then
    skip = skip - held
  else
    local numbers = redis.call('HKEYS', ARGV[1] .. consumer)
    table.sort(numbers, function(a, b) return tonumber(a) < tonumber(b) end)
    local last = math.min(#numbers, skip + left)
    for i = skip + 1, last do
      answer[#answer + 1] = consumer
      answer[#answer + 1] = numbers[i]
      answer[#answer + 1] = redis.call('HGET', ARGV[1] .. consumer, numbers[i])
    end
    left = left - (last - skip)
    skip = 0
  end
end
return answer
