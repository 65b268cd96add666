-- Grant permits of a rate, or return times at which to ask again: `ask` in `jobs/broker/limiting.py`.
-- KEYS  rate
-- ARGV  interval (µs), burst, longest wait (µs; -1: any), how many were granted and not used,
--       reserved time (µs), -1 for a permit that was given back, or 0, ...
-- Returns {now (µs), 0 for a permit or the time at which to ask again (µs), ...}
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval, burst, longest = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local known = redis.call('HMGET', KEYS[1], 'granted', 'reserved', 'interval')
local granted, reserved = tonumber(known[1] or 0), tonumber(known[2] or 0)
local last = tonumber(known[3] or 0)
if interval < last then  -- the rate has become faster
  granted = math.min(granted, now + (granted - now) * interval / last)
  reserved = math.min(reserved, now + (reserved - now) * interval / last)
end
granted = granted - ARGV[4] * interval
local spare = (burst - 1) / 3 * interval
local answer = {now}
for i = 5, #ARGV do
  local before = tonumber(ARGV[i])
  local ready = granted - (burst - 1) * interval
  if before > 0 then ready = ready + spare end
  local left_over = granted <= now - interval
  if (before ~= 0 or reserved <= now or left_over) and ready <= now then
    local since = now
    if before > 0 and math.abs(now - before) < interval then
      since = before
    elseif reserved > now and left_over then
      since = now - interval
    end
    granted = math.max(granted, since) + interval
    answer[#answer + 1] = 0
  else
    local at = math.max(now, reserved, ready)
    if reserved <= now then at = at + (before > 0 and spare or 2 * spare) end
    if longest < 0 or at - now <= longest then reserved = at + interval end
    answer[#answer + 1] = math.max(1, math.ceil(at))
  end
end
redis.call('DEL', KEYS[1])  -- first: a full server refuses a script whose first write adds
-- Formatted, since Lua itself would round such numbers to 14 digits.
redis.call('HSET', KEYS[1], 'granted', string.format('%.0f', math.max(0, granted)),
  'reserved', string.format('%.0f', reserved), 'interval', ARGV[1])
redis.call('PEXPIRE', KEYS[1], math.max(1000, math.ceil((math.max(granted, reserved) - now) / 1000)))
return answer
