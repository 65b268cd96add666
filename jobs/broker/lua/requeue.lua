-- Put a dead letter, or another message in its place, back on its queue, if it is still there.
-- KEYS  dead, list, bell, fair    ARGV  entry id, the other message or '', which list that is (from 0)
-- include tenants.part
local entry = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])[1]
if not entry then return 0 end
local fields = entry[2]
local other = ARGV[2] ~= '' and ARGV[2]
for i = 1, #fields, 2 do
  if fields[i] == 'message' then
    local message = other or fields[i + 1]
    local list, tenant = place_of(KEYS[4], ARGV[3], KEYS[2], message)
    put('LPUSH', KEYS[4], ARGV[3], list, tenant, message)
  end
end
redis.call('XDEL', KEYS[1], ARGV[1])
if redis.call('LLEN', KEYS[3]) < 64 then redis.call('LPUSH', KEYS[3], 1) end
redis.call('PEXPIRE', KEYS[3], 86400000)
return 1
