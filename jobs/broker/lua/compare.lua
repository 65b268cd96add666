-- Begin, continue or end a comparison of the queue with the ledger.
-- KEYS  compared                  ARGV  who, 'begin' or 'continue' or 'end', for how long (ms)
-- Returns 1. 0 to 'begin': somebody else compares, or there is no doubt; 0 to the others: the server
-- has lost its data or is another one since the comparison began, or it took too long.
-- The value is '=<server>' when all was compared, '?<server> <who>' meanwhile.
local function answer(server)
  local said, mine = redis.call('GET', KEYS[1]), '?' .. server .. ' ' .. ARGV[1]
  if ARGV[2] == 'begin' then
    local others = said and said ~= mine and string.find(said, '?' .. server .. ' ', 1, true) == 1
    if said == '=' .. server or others then return 0 end
  elseif said ~= mine then
    return 0
  end
  redis.call('DEL', KEYS[1])  -- first: a full server refuses a script whose first write adds
  redis.call('SET', KEYS[1], ARGV[2] == 'end' and '=' .. server or mine, 'PX', ARGV[3])
  return 1
end
-- include server.part
