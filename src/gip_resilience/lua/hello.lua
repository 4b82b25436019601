-- This process is here, and the store takes what it is given: one that is full or read-only refuses.
--
-- KEYS: node.
-- ARGV: what is known of the process, ms after which it counts as gone.

redis.call('SET', KEYS[1], ARGV[1], 'PX', number(ARGV[2], 1, DAY))
return 1
