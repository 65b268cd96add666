-- Replace a running task's note, and notify those who listen.
-- KEYS  progress or position      ARGV  for how long (ms), note, channel or '' to notify nobody
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[1])
if ARGV[3] ~= '' then redis.call('PUBLISH', ARGV[3], 1) end
