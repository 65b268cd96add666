-- Keep what a running task has noted, in place of what it noted before, and tell those who listen.
-- KEYS  progress or position      ARGV  for how long (ms), what, channel or '' to tell nobody
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[1])
if ARGV[3] ~= '' then redis.call('PUBLISH', ARGV[3], 1) end
