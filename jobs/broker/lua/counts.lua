-- Read the numbers of spans.
-- KEYS  prefix of the metrics' keys        ARGV  span, ...      ('minute:28500000', 'day:19790', ...)
-- Returns {{minute, sent, ...}, {field, number, ...}, ...}: first what was sent in minutes that no
-- span has yet, then each span. In place of a key that is no hash it returns the key's name.
local function read(name)
  local key = KEYS[1] .. name
  local found = redis.pcall('HGETALL', key)
  if not found.err then return found end
  return string.find(found.err, 'WRONGTYPE') and key or redis.call('HGETALL', key)
end
local answer = {read('sent')}
for i = 1, #ARGV do answer[i + 1] = read(ARGV[i]) end
return answer
