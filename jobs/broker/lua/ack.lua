-- Remove finished deliveries and notify those who wait for results.
-- KEYS  inflight          ARGV  channel prefix, how many ranges of numbers,
--       first number, last number, ..., task id, ...
-- Returns how many of the deliveries were still held.
local ids = 3 + 2 * ARGV[2]  -- the index of the first
local numbers, held = {}, 0
for i = 3, ids - 1, 2 do
  for number = tonumber(ARGV[i]), tonumber(ARGV[i + 1]) do numbers[#numbers + 1] = number end
end
if #numbers > 0 then held = redis.call('HDEL', KEYS[1], unpack(numbers)) end
local channels = {}
for i = ids, #ARGV do channels[#channels + 1] = ARGV[1] .. ARGV[i] end
if #channels == 0 then return held end
-- Hardly anybody waits. To ask who does costs a fraction of a notification for each. Subscribers of
-- patterns are counted apart; and whoever may not ask (an error, not a number) notifies all.
local patterns = redis.pcall('PUBSUB', 'NUMPAT')
if patterns == 0 then
  local found, waited = redis.call('PUBSUB', 'NUMSUB', unpack(channels)), {}
  for i = 1, #found, 2 do
    if found[i + 1] > 0 then waited[#waited + 1] = found[i] end
  end
  channels = waited
end
for _, channel in ipairs(channels) do redis.call('PUBLISH', channel, 1) end
return held
