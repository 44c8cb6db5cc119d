-- Takes a life from the set of all, unless it was renewed since. KEYS: all lives. ARGV: its name, when it was renewed last.
if tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or '') == tonumber(ARGV[2]) then redis.call('ZREM', KEYS[1], ARGV[1]) end
