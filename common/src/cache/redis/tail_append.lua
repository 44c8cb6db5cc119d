-- Adds changes to a tail: a stream whose ids are `seq-1`. Each has its offset (o), the bytes of all before it since the run began (s),
-- and its own bytes (b); so the bytes of a run are known from its two ends.
-- KEYS: the tail. ARGV: most entries, most bytes, expiry in ms; then seq, offset, bytes of each change, in order, none twice.
local key = KEYS[1]
local most, most_bytes = tonumber(ARGV[1]), tonumber(ARGV[2])
local FIRST, STEP = 4, 3

local function at(reply)
  local entry = reply[1]
  if not entry then return nil end
  return { seq = tonumber(string.match(entry[1], '^%d+')), start = tonumber(entry[2][4]), size = #entry[2][6] }
end
local function add(seq, offset, start, bytes)
  -- Written by hand: a large number as text would lose its last digits.
  redis.call('XADD', key, seq .. '-1', 'o', offset, 's', string.format('%.0f', start), 'b', bytes)
end

local first = at(redis.call('XRANGE', key, '-', '+', 'COUNT', 1))
local last = at(redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1))

-- What ends right before the run goes in front, as far back as there is room. A stream only grows at its end: it is written anew.
if first then
  local room, room_bytes = most - redis.call('XLEN', key), most_bytes - (last.start + last.size - first.start)
  local front, before = nil, first.seq
  for i = #ARGV - STEP + 1, FIRST, -STEP do
    local seq, size = tonumber(ARGV[i]), #ARGV[i + 2]
    if seq < first.seq then
      if before - seq > 1 or room < 1 or size > room_bytes then break end
      front, before, room, room_bytes = i, seq, room - 1, room_bytes - size
    end
  end
  if front then
    local old = redis.call('XRANGE', key, '-', '+')
    redis.call('DEL', key)
    local total = 0
    for i = front, #ARGV, STEP do
      if tonumber(ARGV[i]) >= first.seq then break end
      add(ARGV[i], ARGV[i + 1], total, ARGV[i + 2])
      total = total + #ARGV[i + 2]
    end
    for _, entry in ipairs(old) do
      add(string.match(entry[1], '^%d+'), entry[2][2], total, entry[2][6])
      total = total + #entry[2][6]
    end
    last.start = total - last.size
  end
end

for i = FIRST, #ARGV, STEP do
  local seq, size = tonumber(ARGV[i]), #ARGV[i + 2]
  if not last or seq > last.seq then
    local start = 0
    if last and seq - last.seq > 1 then
      redis.call('DEL', key)
    elseif last then
      start = last.start + last.size
    end
    add(ARGV[i], ARGV[i + 1], start, ARGV[i + 2])
    last = { seq = seq, start = start, size = size }
  end
end

if last.size > most_bytes then
  redis.call('DEL', key)
  return
end
redis.call('XTRIM', key, 'MAXLEN', most)
first = at(redis.call('XRANGE', key, '-', '+', 'COUNT', 1))
while last.start + last.size - first.start > most_bytes do
  redis.call('XTRIM', key, 'MINID', string.format('%.0f-1', first.seq + 1))
  first = at(redis.call('XRANGE', key, '-', '+', 'COUNT', 1))
end
redis.call('PEXPIRE', key, ARGV[3])
