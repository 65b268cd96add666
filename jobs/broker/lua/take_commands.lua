-- The commands that were left for a worker, the oldest first; they are gone then.
-- KEYS  commands                  ARGV  none
local found = redis.call('LRANGE', KEYS[1], 0, -1)
if #found > 0 then redis.call('DEL', KEYS[1]) end
return found
