-- A probe succeeded. A late one must not close what has been opened anew since: its version is not the present one.
--
-- KEYS: circuit, window, probe.
-- ARGV: channel, tag, version the sender knows.

local circuit = read(KEYS[1])
if circuit.open and circuit.version == ARGV[3] then
  circuit.open, circuit.left = false, 0
  write(KEYS[1], circuit, ARGV[1], ARGV[2])
  redis.call('DEL', KEYS[2], KEYS[3])
end
return answer(circuit)
