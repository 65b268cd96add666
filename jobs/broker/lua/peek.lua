-- Look at waiting messages by their places in the order of a claim.
-- KEYS  fair, list, ...           ARGV  place of the first, from 0, how many (at most 1,000)
-- Returns {message, index of its list from 0, ...}
-- Of more than 1,000 tenants of a list, it looks at those whose turns are next: its work is bounded.
local skip, left = tonumber(ARGV[1]), tonumber(ARGV[2])
local answer = {}
local function show(list, from, start, count)
  local found = redis.call('LRANGE', from, -start - count, -start - 1)
  for i = #found, 1, -1 do  -- popped right
    answer[#answer + 1] = found[i]
    answer[#answer + 1] = list - 2
  end
  left = left - #found
end

local function look(list)
  local length = redis.call('LLEN', KEYS[list])
  if skip >= length then
    skip = skip - length
  else
    show(list, KEYS[list], skip, left)
    skip = 0
  end
end

-- Each round gives one message of each tenant that has more than so many.
local function look_by_turns(list, turns)
  local waiting = {}
  for _, tenant in ipairs(redis.call('ZRANGE', turns, 0, 999)) do
    local from = tenant == '' and KEYS[list] or turns .. ':' .. tenant
    waiting[#waiting + 1] = {from, redis.call('LLEN', from)}
  end
  local round = 0
  while left > 0 do
    local more, fewest = {}, math.huge
    for _, one in ipairs(waiting) do
      if one[2] > round then
        more[#more + 1] = one
        fewest = math.min(fewest, one[2])
      end
    end
    if #more == 0 then return end
    waiting = more
    local rounds = math.min(fewest - round, math.floor(skip / #more))  -- to be passed over as a whole
    if rounds > 0 then
      skip = skip - rounds * #more
    else
      for i = skip + 1, math.min(#more, skip + left) do show(list, more[i][1], round, 1) end
      skip, rounds = 0, 1
    end
    round = round + rounds
  end
end

local fair = {}
for _, place in ipairs(redis.call('HKEYS', KEYS[1])) do fair[tonumber(place)] = true end
for list = 2, #KEYS do
  if left == 0 then break end
  if fair[list - 2] then look_by_turns(list, KEYS[1] .. ':' .. list - 2) else look(list) end
end
return answer
