-- May this node send the probe? One node at a time; who does not come back keeps the others for a lease at most.
--
-- KEYS: circuit, probe.
-- ARGV: channel, tag, node, host, model; version the sender knows, lease in ms.
-- Answer: the circuit; then 1 (yes), 0 (another one does) or -1 (things are not as you think); ms until it makes sense
-- to ask again.

local node, lease = ARGV[3], number(ARGV[7], 1, DAY)
local circuit = read(KEYS[1])
if circuit.version == '0' then
  -- The record is lost (a restart, a failover), and the sender still has the circuit open: it stands in for it.
  circuit.open, circuit.kind = true, 'trip'
  redis.call('HSET', KEYS[1], 'host', ARGV[4], 'model', ARGV[5], 'node', node)
  write(KEYS[1], circuit, ARGV[1], ARGV[2])
elseif not circuit.open or circuit.version ~= ARGV[6] or circuit.left > 0 then
  return answer(circuit, -1, circuit.left)
end
local holder = redis.call('GET', KEYS[2])
if holder and holder ~= node then return answer(circuit, 0, math.max(1, redis.call('PTTL', KEYS[2]))) end
redis.call('SET', KEYS[2], node, 'PX', lease)
redis.call('PEXPIRE', KEYS[1], digits(lease + KEEP))
return answer(circuit, 1, lease)
