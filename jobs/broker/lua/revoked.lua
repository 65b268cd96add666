-- Look up which tasks are revoked.
-- KEYS  revoked                   ARGV  task id, ...
-- Returns for each 0, 1, or 2 when it is to be terminated.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function holds(member)
  local ends = redis.call('ZSCORE', KEYS[1], member)
  return ends and tonumber(ends) > now
end
local answer = {}
for i, id in ipairs(ARGV) do
  answer[i] = holds(id) and (holds('t:' .. id) and 2 or 1) or 0
end
return answer
