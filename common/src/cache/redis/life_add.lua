-- Adds to the set of a node's life, and keeps it; 1 when it was not in it. KEYS: the life. ARGV: what, expiry in ms.
local new = redis.call('SADD', KEYS[1], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return new
