-- Take a unique lock for a call, or return who has it.
-- KEYS  lock              ARGV  task id, for how long (ms), '' or 'replace' or 'keep'
-- Returns '' when the call has it, else the id of the call that has it, or '-' when nobody has it.
-- The lock's value is the call's id, with a '-' in front once the call has released it.
local holder = redis.call('GET', KEYS[1]) or '-'
local mine, free = holder == ARGV[1], string.sub(holder, 1, 1) == '-'
if not mine then
  if ARGV[3] == 'keep' then return free and '-' or holder end
  if not free and ARGV[3] == '' then return holder end
end
redis.call('DEL', KEYS[1])  -- first: a full server refuses a script whose first write adds
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return ''
