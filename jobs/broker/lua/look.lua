-- Read what operators want to see of a queue, besides its counts (stats.lua). It changes nothing.
-- KEYS  paused, workers, fair, list, ...   (one for each priority step)
-- ARGV  bytes of the largest message to return
-- Returns {{task, pause, ...}, {worker, report, ...}, {the next message of a list, ...}}
-- In place of a key that is no hash it returns the key's name.
local function read(key)
  local found = redis.pcall('HGETALL', key)
  if not found.err then return found end
  return string.find(found.err, 'WRONGTYPE') and key or redis.call('HGETALL', key)
end
local next_ones = {}
for list = 4, #KEYS do
  local message
  -- The two whose turns are next: the plain list, which is '', may be empty.
  for _, tenant in ipairs(redis.call('ZRANGE', KEYS[3] .. ':' .. list - 4, 0, 1)) do
    if tenant ~= '' then tenant = KEYS[3] .. ':' .. list - 4 .. ':' .. tenant end
    message = message or redis.call('LINDEX', tenant == '' and KEYS[list] or tenant, -1)
  end
  message = message or redis.call('LINDEX', KEYS[list], -1)
  if message and #message <= tonumber(ARGV[1]) then next_ones[#next_ones + 1] = message end
end
return {read(KEYS[1]), read(KEYS[2]), next_ones}
