-- The changes behind a seq, or false when the tail does not touch that place. KEYS: the tail. ARGV: the seq.
local key, after = KEYS[1], tonumber(ARGV[1])
local first = redis.call('XRANGE', key, '-', '+', 'COUNT', 1)[1]
if not first then return false end
local last = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)[1]
if after > tonumber(string.match(last[1], '^%d+')) or after + 1 < tonumber(string.match(first[1], '^%d+')) then
  return false
end
return redis.call('XRANGE', key, string.format('%.0f-1', after + 1), '+')
