-- Promote what is due, then move messages from the queue into flight.
-- KEYS  inflight, consumers, revoked, claimed, paused, due, bell, fair, list, ...  (one for each
--       priority step)
-- ARGV  consumer, lease (ms), number of the first delivery, limit,
--       which list each priority from 0 to 9 has: ten digits, '0001112223' with Celery's steps
-- Returns {ms until the next due message or -1, how many revocations are in force, how many tasks
--       are paused, message, ...}; {-1, 0, -1} for a paused queue
--      or {-1, -n, 0}: the number was used before and is settled; n is the next free one
--
-- Writes that remove come before writes that add: a full server refuses a script whose first write
-- adds, but lets a script finish that has already written. So a full server can be worked off.
--
-- An idle worker runs this for each message, and what is rare is asked about in one call.

-- include tenants.part

local DUE, BELL, FAIR, LISTS = 6, 7, 8, 9  -- indexes of these keys; the lists come last

local function milliseconds()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Held already: an earlier call claimed it, and its answer was lost.
local again = redis.call('HEXISTS', KEYS[1], ARGV[3]) == 1

-- How many lists have messages; one more when tenants wait.
local filled = redis.call('EXISTS', unpack(KEYS, FAIR))

-- The shortcut of an idle consumer: there is nothing at all.
if not again and filled == 0 and redis.call('EXISTS', KEYS[DUE], KEYS[BELL]) == 0 then
  return {-1, 0, 0}
end

-- A late call from a connection that its consumer has given up: nobody would read the answer, and
-- the deliveries held under the next numbers would be overwritten.
local number, left = tonumber(ARGV[3]), tonumber(ARGV[4])
local free = tonumber(redis.call('GET', KEYS[4]) or 0)
if not again and number < free then return {-1, -free, 0} end

local answer = {-1, 0, 0}
local fair = {}  -- the places of the lists on which tenants wait
-- A key counts as often as it is named: the result is over 3 only if tenants wait.
local rare = redis.call('EXISTS', KEYS[3], KEYS[5], KEYS[DUE], KEYS[FAIR], KEYS[FAIR], KEYS[FAIR], KEYS[FAIR])
if rare > 3 then
  for _, place in ipairs(redis.call('HKEYS', KEYS[FAIR])) do fair[tonumber(place)] = true end
  rare, filled = rare - 4, #KEYS  -- any may have messages
end
if rare > 0 then
  local paused = redis.call('HLEN', KEYS[5])
  if paused > 0 and redis.call('HEXISTS', KEYS[5], '') == 1 then
    if not again then
      redis.call('DEL', KEYS[BELL])  -- no consumer should wake up for this queue
      return {-1, 0, -1}
    end
    paused = paused - 1
  end
  local now = milliseconds()
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[DUE], '-inf', now, 'LIMIT', 0, 500)) do
    local priority = string.sub(member, 1, 1) + 1
    local place = tonumber(string.sub(ARGV[5], priority, priority))
    local message = string.sub(member, 3)
    local list, tenant = place_of(KEYS[FAIR], place, KEYS[LISTS + place], message)
    redis.call('ZREM', KEYS[DUE], member)
    put('LPUSH', KEYS[FAIR], place, list, tenant, message)
    if tenant then fair[place] = true end
    filled = #KEYS  -- any may have messages now
  end
  answer = {-1, redis.call('ZCOUNT', KEYS[3], '(' .. now, '+inf'), paused}
  local next_due = redis.call('ZRANGE', KEYS[DUE], 0, 0, 'WITHSCORES')[2]
  if next_due then answer[1] = math.max(0, next_due - now) end
end

if again then
  for held = number, number + left - 1 do
    local message = redis.call('HGET', KEYS[1], held)
    if not message then break end
    answer[#answer + 1] = message
  end
  left = 0
end

for list = LISTS, #KEYS do
  if left == 0 or filled == 0 then break end
  local messages
  if fair[list - LISTS] then
    messages = take_turns(KEYS[FAIR], list - LISTS, KEYS[list], left)
  else
    messages = redis.call('RPOP', KEYS[list], left)
  end
  if messages and #messages > 0 then
    filled = filled - 1
    local pairs_ = {}
    for _, message in ipairs(messages) do
      pairs_[#pairs_ + 1] = number
      pairs_[#pairs_ + 1] = message
      answer[#answer + 1] = message
      number = number + 1
    end
    redis.call('HSET', KEYS[1], unpack(pairs_))
    left = left - #messages
  end
end

if number > tonumber(ARGV[3]) then
  redis.call('SET', KEYS[4], number, 'PX', 86400000)
end

-- Only the messages of a known consumer can be reclaimed.
if #answer > 3 and not redis.call('ZSCORE', KEYS[2], ARGV[1]) then
  redis.call('ZADD', KEYS[2], milliseconds() + ARGV[2], ARGV[1])
end

-- The lists are empty: the remaining bells would wake consumers for nothing.
if left > 0 then redis.call('DEL', KEYS[BELL]) end
return answer
