-- Look at waiting messages by their places in the order of a claim.
-- KEYS  list, ...                 ARGV  place of the first, from 0, how many (at most 1,000)
-- Returns {message, index of its list from 0, ...}
local skip, left = tonumber(ARGV[1]), tonumber(ARGV[2])
local answer = {}
for list = 1, #KEYS do
  if left == 0 then break end
  local length = redis.call('LLEN', KEYS[list])
  if skip >= length then
    skip = skip - length
  else
    local found = redis.call('LRANGE', KEYS[list], -skip - left, -skip - 1)
    for i = #found, 1, -1 do  -- popped right
      answer[#answer + 1] = found[i]
      answer[#answer + 1] = list - 1
    end
    left = left - #found
    skip = 0
  end
end
return answer
