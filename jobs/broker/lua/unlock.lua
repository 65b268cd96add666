-- Release the unique lock that a call has.
-- KEYS  lock              ARGV  task id, 'replace' to leave a trace of it, or another value
-- Returns '', or the id of another call that has the lock or left its trace.
local holder = redis.call('GET', KEYS[1])
if holder == ARGV[1] then
  local left = redis.call('PTTL', KEYS[1])
  redis.call('DEL', KEYS[1])
  if ARGV[2] == 'replace' and left > 0 then
    redis.call('SET', KEYS[1], '-' .. holder, 'PX', left)
  end
  return ''
end
if not holder or holder == '-' .. ARGV[1] then return '' end
return (string.gsub(holder, '^-', ''))
