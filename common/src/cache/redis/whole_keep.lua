-- Says since when nothing was forgotten, in ms of the server's time, and that it goes on. KEYS: it. ARGV: for how long at most, in ms.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local since = tonumber(redis.call('GET', KEYS[1]) or '')
if not since or since > now then since = now end
redis.call('SET', KEYS[1], string.format('%.0f', since), 'PX', ARGV[1])
return since
