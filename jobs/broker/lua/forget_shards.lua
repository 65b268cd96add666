-- Forget numbers of shards that nobody has repeated for a while.
-- KEYS  shards         ARGV  for how long (ms), <number>:<queue>, ...
-- Returns 1 if there were any of these, and all of them are forgotten; else 0
local time = redis.call('TIME')
local since = time[1] * 1000 + math.floor(time[2] / 1000) - ARGV[1]
local forgotten, left = 0, 0
for i = 2, #ARGV do
  local said = redis.call('ZSCORE', KEYS[1], ARGV[i])
  if said and tonumber(said) <= since then
    forgotten = forgotten + redis.call('ZREM', KEYS[1], ARGV[i])
  elseif said then
    left = left + 1
  end
end
return (forgotten > 0 and left == 0) and 1 or 0
