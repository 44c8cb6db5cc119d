-- Ends a life: from here on its sessions are shown to nobody. 0 when it is up, unless it is to end all the same. KEYS: its sockets, where they
-- go, the life. ARGV: expiry in ms, 1 to end it all the same.
if ARGV[2] == '1' then
  redis.call('DEL', KEYS[3])
elseif redis.call('EXISTS', KEYS[3]) == 1 then
  return 0
end
if redis.call('EXISTS', KEYS[1]) == 1 then
  redis.call('RENAME', KEYS[1], KEYS[2])
  redis.call('PEXPIRE', KEYS[2], ARGV[1])
end
return 1
