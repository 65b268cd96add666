-- Count what a queue holds. Bounded by the number of consumers.
-- KEYS  consumers, due, dead, fair, list, ...   (one for each priority step)
-- ARGV  prefix of inflight keys
-- Returns {waiting, due, dead, now (ms), consumer, end of its lease (ms), in flight, ...}
-- The inflight keys carry the queue's hash tag, so they are in the slot of the keys declared.
local time = redis.call('TIME')
local waiting = 0
for list = 5, #KEYS do waiting = waiting + redis.call('LLEN', KEYS[list]) end
for _, count in ipairs(redis.call('HVALS', KEYS[4])) do waiting = waiting + count end
local answer = {
  waiting, redis.call('ZCARD', KEYS[2]), redis.call('XLEN', KEYS[3]),
  time[1] * 1000 + math.floor(time[2] / 1000),
}
local consumers = redis.call('ZRANGE', KEYS[1], 0, 999, 'WITHSCORES')
for i = 1, #consumers, 2 do
  answer[#answer + 1] = consumers[i]
  answer[#answer + 1] = consumers[i + 1]
  answer[#answer + 1] = redis.call('HLEN', ARGV[1] .. consumers[i])
end
return answer
