-- The changes at an offset or after it, or false when the tail may lack the first of them. KEYS: the tail. ARGV: the offset.
local key, offset = KEYS[1], tonumber(ARGV[1])
local first = redis.call('XRANGE', key, '-', '+', 'COUNT', 1)[1]
if not first then return false end
local last = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)[1]
if tonumber(last[2][2]) < offset then return false end
if tonumber(first[2][2]) > offset and tonumber(string.match(first[1], '^%d+')) > 1 then return false end
local found = {}
for _, entry in ipairs(redis.call('XRANGE', key, '-', '+')) do
  if tonumber(entry[2][2]) >= offset then found[#found + 1] = entry end
end
return found
