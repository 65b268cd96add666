-- Read some of the numbers of the tasks of spans: a task has up to 200, and few are asked for.
-- KEYS  prefix of the metrics' keys        ARGV  how many fields, field, ..., span, ...
-- Returns {'=<task>', number, '<number>:<field>', count, ...} for each span, as `counts.lua`; in
-- place of a key that is no hash, the key's name.
local wanted = tonumber(ARGV[1])
local function read(key)
  local found, asked, cursor = {}, {}, '0'
  for f = 2, wanted + 1 do asked[#asked + 1] = '0:' .. ARGV[f] end
  repeat
    local page = redis.pcall('HSCAN', key, cursor, 'MATCH', '=*', 'COUNT', 10000)
    if page.err then
      return string.find(page.err, 'WRONGTYPE') and key or redis.call('HGETALL', key)
    end
    cursor = page[1]
    for n = 1, #page[2], 2 do
      found[#found + 1] = page[2][n]
      found[#found + 1] = page[2][n + 1]
      for f = 2, wanted + 1 do asked[#asked + 1] = page[2][n + 1] .. ':' .. ARGV[f] end
    end
  until cursor == '0'
  for first = 1, #asked, 1000 do
    local last = math.min(first + 999, #asked)
    local counts = redis.call('HMGET', key, unpack(asked, first, last))
    for n = first, last do
      if counts[n - first + 1] then
        found[#found + 1] = asked[n]
        found[#found + 1] = counts[n - first + 1]
      end
    end
  end
  return found
end
local answer = {}
for i = wanted + 2, #ARGV do answer[#answer + 1] = read(KEYS[1] .. ARGV[i]) end
return answer
