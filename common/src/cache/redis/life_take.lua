-- Takes a life that is over, unless somebody else has; 1 when it is taken. KEYS: the life, who has taken it. ARGV: who takes it, for how many ms.
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
local taker = redis.call('GET', KEYS[2])
if taker and taker ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
return 1
