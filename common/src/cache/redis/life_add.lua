-- Adds to the sockets of a node's life, and keeps it up; 1 when it was not among them. KEYS: its sockets, the life. ARGV: what, expiry of the
-- sockets in ms, the life's in ms (0: left to whoever keeps it up).
local new = redis.call('SADD', KEYS[1], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
if ARGV[3] ~= '0' then redis.call('SET', KEYS[2], 1, 'PX', ARGV[3]) end
return new
