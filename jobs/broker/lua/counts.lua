-- Read the numbers of spans.
-- KEYS  prefix of the metrics' keys        ARGV  span, ...      ('minute:28500000', 'day:19790', ...)
-- Returns {{minute, sent, ...}, {field, number, ...}, ...}: first what was sent in minutes that no
-- span has yet, then each span.
local answer = {redis.call('HGETALL', KEYS[1] .. 'sent')}
for i = 1, #ARGV do answer[i + 1] = redis.call('HGETALL', KEYS[1] .. ARGV[i]) end
return answer
