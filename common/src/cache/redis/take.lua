-- Takes from a bucket, kept as the moment at which it is full again. All times but the last in microseconds.
-- KEYS: the bucket. ARGV: now, time for one, burst, cost, how long it is kept after it is full, in ms.
-- Answers for how many milliseconds there is not enough; 0 when it was taken.
local now, one, burst, cost = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local whole = one * burst
local full_at = tonumber(redis.call('GET', KEYS[1]) or now)
full_at = math.max(now, math.min(full_at, now + whole)) + one * math.min(cost, burst)
local over = full_at - now - whole
if over > 0 then return math.ceil(over / 1000) end
if cost > 0 then
  local keep = math.min(math.ceil((full_at - now) / 1000) + tonumber(ARGV[5]), 1e12)
  redis.call('SET', KEYS[1], string.format('%.0f', full_at), 'PX', string.format('%.0f', keep))
end
return 0
