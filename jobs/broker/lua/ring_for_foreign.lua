-- Wake an idle consumer for each message that waits, as far as no bell rings for it yet: foreign
-- senders ring none.
-- KEYS  bell, paused, list, ...  (one for each priority step)
-- ARGV  none
-- Returns how many messages wait. Nobody is woken for a paused queue.
local waiting = 0
for list = 3, #KEYS do waiting = waiting + redis.call('LLEN', KEYS[list]) end
if waiting > 0 and redis.call('HEXISTS', KEYS[2], '') == 0 then
  for _ = redis.call('LLEN', KEYS[1]) + 1, math.min(waiting, 64) do
    redis.call('LPUSH', KEYS[1], 1)
  end
  redis.call('PEXPIRE', KEYS[1], 86400000)
end
return waiting
