-- Promote what is due, then move messages from the queue into flight.
-- KEYS  list 0, list 3, list 6, list 9, inflight, consumers, due, bell, revoked, claimed,
--       paused
-- ARGV  consumer, lease (ms), number of the first delivery, limit
-- Returns {ms until the next due message or -1, how many revocations hold, how many tasks are
--       paused, message, ...}; of a paused queue no messages, and the next due one is not told
--      or {-1, -n, 0}: the number was given before and is settled; n is the next that is free
--
-- What removes comes before what adds: a full server refuses a script whose first write adds, and
-- lets it go on once it has written. So a full server can be worked off.

-- Held already: an earlier call took it, and its answer was lost.
local again = redis.call('HEXISTS', KEYS[5], ARGV[3]) == 1

-- What an idle consumer finds nearly always.
if not again and redis.call('EXISTS', KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[7], KEYS[8]) == 0 then
  return {-1, 0, 0}
end

-- A late call, by a connection that its consumer has given up since: nobody would learn of what it
-- took, and what is held under the numbers that follow would be overwritten.
local number, left = tonumber(ARGV[3]), tonumber(ARGV[4])
local free = tonumber(redis.call('GET', KEYS[10]) or 0)
if not again and number < free then return {-1, -free, 0} end

local paused = redis.call('HLEN', KEYS[11])
if paused > 0 and redis.call('HEXISTS', KEYS[11], '') == 1 then
  if not again then
    redis.call('DEL', KEYS[8])  -- whatever rings, there is nothing to come for
    return {-1, 0, 0}
  end
  paused = paused - 1
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[7], '-inf', now, 'LIMIT', 0, 500)) do
  local step = math.floor(tonumber(string.sub(member, 1, 1)) / 3)
  redis.call('LLEN', KEYS[1 + step])  -- a key of another type fails here, with nothing lost
  redis.call('ZREM', KEYS[7], member)
  redis.call('LPUSH', KEYS[1 + step], string.sub(member, 3))
end

local answer = {-1, redis.call('ZCOUNT', KEYS[9], '(' .. now, '+inf'), paused}
local next_due = redis.call('ZRANGE', KEYS[7], 0, 0, 'WITHSCORES')[2]
if next_due then answer[1] = math.max(0, next_due - now) end

if again then
  for held = number, number + left - 1 do
    local message = redis.call('HGET', KEYS[5], held)
    if not message then break end
    answer[#answer + 1] = message
  end
  left = 0
end

for list = 1, 4 do
  if left == 0 then break end
  local messages = redis.call('RPOP', KEYS[list], left)
  if messages then
    local pairs_ = {}
    for _, message in ipairs(messages) do
      pairs_[#pairs_ + 1] = number
      pairs_[#pairs_ + 1] = message
      answer[#answer + 1] = message
      number = number + 1
    end
    redis.call('HSET', KEYS[5], unpack(pairs_))
    left = left - #messages
  end
end

if number > tonumber(ARGV[3]) then
  redis.call('SET', KEYS[10], number, 'PX', 86400000)
end

-- Whatever it holds can be reclaimed only if it is known.
if #answer > 3 and not redis.call('ZSCORE', KEYS[6], ARGV[1]) then
  redis.call('ZADD', KEYS[6], now + ARGV[2], ARGV[1])
end

-- The lists are empty: bells that still ring would wake consumers for nothing.
if left > 0 then redis.call('DEL', KEYS[8]) end
return answer
