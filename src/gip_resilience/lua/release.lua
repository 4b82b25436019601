-- The probe came to nothing (it was cancelled): the next may be sent at once.
--
-- KEYS: probe.
-- ARGV: channel, tag, node.

if redis.call('GET', KEYS[1]) ~= ARGV[3] then return 0 end
redis.call('DEL', KEYS[1])
redis.call('PUBLISH', ARGV[1], 'f ' .. ARGV[2])
return 1
