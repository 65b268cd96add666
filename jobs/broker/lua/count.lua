-- Add to the numbers of a queue and of its tasks, in the present span of each resolution.
-- KEYS  prefix of the metrics' keys
-- ARGV  most tasks of one span, '', how many fields, field, number, ...      (of the queue)
--       task, how many fields, field, number, ...      (of each task; '': of all others)
-- A span's tasks are numbered, and a field is '<number of the task>:<field>'. The others have 0.
-- A key of another type and a field that is no number are passed over: the other spans go on.
local function pass(answer, ...)
  local why = type(answer) == 'table' and answer.err
  if not why then return answer end
  if not (string.find(why, 'WRONGTYPE') or string.find(why, 'integer')
    or string.find(why, 'overflow')) then redis.call(...) end  -- raises
end
local function increase(...) return pass(redis.pcall('HINCRBY', ...), 'HINCRBY', ...) end
local time = redis.call('TIME')[1]
local resolutions = {  -- name, seconds of a span, for how long it is kept, and for how long its tasks
  {'minute:', 60, 691200, 7200}, {'ten:', 600, 691200, 172800}, {'hour:', 3600, 691200, 691200},
  {'day:', 86400, 34560000, 34560000}, {'ever:', 1e12, 34560000, 34560000},
}
for _, resolution in ipairs(resolutions) do
  local span = KEYS[1] .. resolution[1] .. math.floor(time / resolution[2])
  local tasks = span .. ':tasks'
  local i = 2
  while i < #ARGV do
    local key, start = span, ''
    if i > 2 then
      local name = '=' .. ARGV[i]
      local number = ARGV[i] == '' and 0 or pass(redis.pcall('HGET', tasks, name), 'HGET', tasks, name)
      if not number then
        number = increase(tasks, '#', 1)
        if not number then
          number = 0  -- nobody can be numbered any more
        elseif number > tonumber(ARGV[1]) then
          number = 0
          increase(tasks, '#', -1)
        else
          redis.call('HSET', tasks, name, number)
        end
      end
      key, start = tasks, number .. ':'
    end
    for n = i + 2, i + 2 * ARGV[i + 1], 2 do
      increase(key, start .. ARGV[n], ARGV[n + 1])
    end
    i = i + 2 + 2 * ARGV[i + 1]
  end
  redis.call('EXPIRE', span, resolution[3])
  redis.call('EXPIRE', tasks, resolution[4])
end
