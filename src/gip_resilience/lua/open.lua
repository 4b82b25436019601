-- This circuit is to be open: an answer said that the model is unavailable, or a probe failed, or the fleet's record
-- of it was lost while the store was away.
--
-- KEYS: circuit, window, probe.
-- ARGV: channel, tag, node, host, model; `trip`, `probe` or `kept`; open time in ms; version the sender knows (`probe`),
--       or why it was open (`kept`).

local channel, tag, node, host, model = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local why, length = ARGV[6], number(ARGV[7], 0, DAY)
local circuit = read(KEYS[1])

if why == 'probe' then
  -- Only the latest probe's word counts, and only about the state it was sent in.
  local holder = redis.call('GET', KEYS[3])
  if not circuit.open or circuit.version ~= ARGV[8] or (holder and holder ~= node) then return answer(circuit) end
elseif why == 'kept' then
  if circuit.version ~= '0' then return answer(circuit) end  -- the fleet knows better
  circuit.kind = ARGV[8] == 'ratio' and 'ratio' or 'trip'
else
  -- Another one may have said so before: not everybody has to be told by each.
  if circuit.open and length <= circuit.left + 1000 then return answer(circuit) end
  circuit.kind = 'trip'
end
circuit.open, circuit.left = true, length
redis.call('HSET', KEYS[1], 'host', host, 'model', model, 'node', node)
write(KEYS[1], circuit, channel, tag)
redis.call('DEL', KEYS[2], KEYS[3])
return answer(circuit)
