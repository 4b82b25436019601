-- Retry tokens of a scope, for the whole fleet. Successes bring some back; a node takes a few at a time.
--
-- KEYS: budget.
-- ARGV: host, model; the most there can be, tokens brought back, tokens wanted: all in thousandths; ms after which it
-- is full again when nobody asks.
-- Answer: thousandths given, thousandths left.

local most = number(ARGV[3], 0, 1e12)
local stored = tonumber(redis.call('HMGET', KEYS[1], 'tokens')[1] or '')
local tokens = math.max(0, math.min(most, (stored or most) + number(ARGV[4], 0, 1e12)))
local given = math.min(tokens, number(ARGV[5], 0, 1e12))
redis.call('HSET', KEYS[1], 'tokens', digits(tokens - given), 'host', ARGV[1], 'model', ARGV[2])
redis.call('PEXPIRE', KEYS[1], number(ARGV[6], 1, DAY))
return {given, tokens - given}
