-- Say whether the server may have lost messages since they were last compared with the ledger.
-- KEYS  compared                  ARGV  none
-- Returns 1, or 0 when this server, since its start, has all that was compared.
local function answer(server)
  return redis.call('GET', KEYS[1]) == '=' .. server and 0 or 1
end
-- include server.part
