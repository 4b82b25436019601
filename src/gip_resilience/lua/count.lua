-- How is this circuit, and here is what became of some calls. The fleet opens it when enough of all calls of the
-- last seconds failed, and more than one node saw it: one bad node must not close the way for the others.
--
-- KEYS: circuit, window.
-- ARGV: channel, tag, node, host, model; calls, failures, whether they fail at this node on the whole;
--       width of a part of the window in ms, parts; least calls, share of failures in thousandths, least nodes,
--       open time in ms.

local channel, tag, node, host, model = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local calls = number(ARGV[6], 0, 1e6)
local failures = number(ARGV[7], 0, calls)
local failing = ARGV[8] == '1'
local width = number(ARGV[9], 1, 3600000)
local parts = number(ARGV[10], 1, 1000)
local circuit = read(KEYS[1])
if calls == 0 or circuit.open then return answer(circuit) end

local part = math.floor(now / width)
redis.call('HINCRBY', KEYS[2], digits(part) .. ':c', calls)
if failures > 0 then redis.call('HINCRBY', KEYS[2], digits(part) .. ':f', failures) end

local sums, nodes, known, stale = {c = 0, f = 0}, 0, false, {}
local all = redis.call('HGETALL', KEYS[2])
for i = 1, #all, 2 do
  local name, value = all[i], tonumber(all[i + 1])
  local stamp, what = string.match(name, '^(%d+):([cf])$')
  local seen = stamp or value
  if not value or not tonumber(seen) or tonumber(seen) <= part - parts or tonumber(seen) > part then
    stale[#stale + 1] = name  -- too old, or from before the clock was set back
  elseif stamp then
    sums[what] = sums[what] + value
  elseif name == 'n:' .. node then
    known = true
  else
    nodes = nodes + 1
  end
end
if #stale > 0 then redis.call('HDEL', KEYS[2], unpack(stale, 1, math.min(#stale, 1000))) end
-- A few names are enough to know that there is more than one.
if failing and (known or nodes < 16) then
  redis.call('HSET', KEYS[2], 'n:' .. node, digits(part))
  nodes = nodes + 1
elseif known then
  redis.call('HDEL', KEYS[2], 'n:' .. node)
end
redis.call('PEXPIRE', KEYS[2], digits((parts + 1) * width))

if failures == 0 or sums.c < number(ARGV[11], 1, 1e9) or nodes < number(ARGV[13], 1, 16)
  or sums.f * 1000 < sums.c * number(ARGV[12], 1, 1000) then
  return answer(circuit)
end
circuit.open, circuit.left, circuit.kind = true, number(ARGV[14], 0, DAY), 'ratio'
redis.call('HSET', KEYS[1], 'host', host, 'model', model, 'node', node)
write(KEYS[1], circuit, channel, tag)
redis.call('DEL', KEYS[2])
return answer(circuit)
