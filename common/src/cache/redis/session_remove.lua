-- Takes a socket from a user if what is noted begins as given, and answers what was noted. KEYS: the user. ARGV: socket, beginning.
local noted = redis.call('HGET', KEYS[1], ARGV[1])
if not noted or string.sub(noted, 1, #ARGV[2]) ~= ARGV[2] then return false end
redis.call('HDEL', KEYS[1], ARGV[1])
return noted
