-- Retry tokens of a scope, for the whole fleet. Successes bring some back; a node takes a few at a time.
--
-- KEYS: budget.
-- ARGV: the most there can be, tokens brought back, tokens wanted: all in thousandths; ms after which it is full again
-- when nobody asks.
-- Answer: thousandths given, thousandths left.

local most = number(ARGV[1], 0, 1e12)
local stored = tonumber(redis.call('GET', KEYS[1]) or '')
local tokens = math.min(most, (stored or most) + number(ARGV[2], 0, 1e12))
local given = math.min(math.max(0, tokens), number(ARGV[3], 0, 1e12))
redis.call('SET', KEYS[1], digits(tokens - given), 'PX', number(ARGV[4], 1, DAY))
return {given, tokens - given}
