-- How long is this gate closed, and here is an answer that closes it (0 ms: a mere question). It only ever gets longer.
--
-- KEYS: gate.
-- ARGV: channel, tag, node, host, model; ms it closes for, ms the server asked for, the most it may be closed for.
-- Answer: ms that are left; ms that are left of what the server asked for, or -1 where an operator has opened it.

local most = number(ARGV[8], 0, DAY)
local length, claimed = number(ARGV[6], 0, most), number(ARGV[7], 0, DAY)
local record = redis.call('HMGET', KEYS[1], 'until', 'length', 'claimed', 'opened')
local rest = left(record[1], record[2])
local rest_claimed = left(record[3], DAY)
if record[4] and length == 0 then return {0, -1} end
if length <= rest + 50 then return {rest, math.max(rest, rest_claimed)} end
claimed = math.max(length, claimed, rest_claimed)
redis.call('HSET', KEYS[1], 'until', digits(now + length), 'length', digits(length), 'claimed', digits(now + claimed),
  'host', ARGV[4], 'model', ARGV[5], 'node', ARGV[3])
redis.call('HDEL', KEYS[1], 'opened')
redis.call('PEXPIRE', KEYS[1], digits(length))
redis.call('PUBLISH', ARGV[1], table.concat({'g', ARGV[2], digits(length), digits(claimed)}, ' '))
return {length, claimed}
