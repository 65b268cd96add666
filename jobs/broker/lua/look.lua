-- Read what operators want to see of a queue, besides its counts (stats.lua). It changes nothing.
-- KEYS  paused, workers, list, ...   (one for each priority step)
-- ARGV  bytes of the largest message to return
-- Returns {{task, pause, ...}, {worker, report, ...}, {the next message of a list, ...}}
-- In place of a key that is no hash it returns the key's name.
local function read(key)
  local found = redis.pcall('HGETALL', key)
  if not found.err then return found end
  return string.find(found.err, 'WRONGTYPE') and key or redis.call('HGETALL', key)
end
local next_ones = {}
for list = 3, #KEYS do
  local message = redis.call('LINDEX', KEYS[list], -1)
  if message and #message <= tonumber(ARGV[1]) then next_ones[#next_ones + 1] = message end
end
return {read(KEYS[1]), read(KEYS[2]), next_ones}
