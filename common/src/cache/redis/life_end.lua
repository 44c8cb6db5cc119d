-- Ends a life: from here on its sessions are shown to nobody. KEYS: its sockets, where they go, the life. ARGV: expiry in ms.
redis.call('DEL', KEYS[3])
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('RENAME', KEYS[1], KEYS[2])
redis.call('PEXPIRE', KEYS[2], ARGV[1])
return 1
