-- Takes from a bucket, kept as the moment at which it is full again. Times are in microseconds where nothing else is said.
-- KEYS: the bucket. ARGV: now, time for one, burst, cost, how long it is kept after it is full, in ms.
-- Answers for how many milliseconds there is not enough; 0 when it was taken.
local now, one, burst, cost = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local whole = one * burst
local function keep(full_at)
  local ms = math.min(math.ceil((full_at - now) / 1000) + tonumber(ARGV[5]), 1e12)
  redis.call('SET', KEYS[1], string.format('%.0f', full_at), 'PX', string.format('%.0f', ms))
end

local noted = tonumber(redis.call('GET', KEYS[1]) or now)
local full_at = math.max(now, math.min(noted, now + whole))
local after = full_at + one * math.min(cost, burst)
local over = after - now - whole
if over > 0 then
  -- Somebody's clock was ahead: the bucket is empty, and fills from now on.
  if noted > full_at then keep(full_at) end
  return math.ceil(over / 1000)
end
if cost > 0 then keep(after) end
return 0
