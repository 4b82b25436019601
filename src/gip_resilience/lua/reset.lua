-- An operator's word: the circuit is closed, or the gate open, for everybody, and what was learned is forgotten.
--
-- KEYS: circuit, window, probe; or gate.
-- ARGV: channel, tag.

if #KEYS == 1 then
  redis.call('DEL', KEYS[1])
  return redis.call('PUBLISH', ARGV[1], 'o ' .. ARGV[2])
end
local circuit = read(KEYS[1])
circuit.open, circuit.left, circuit.kind = false, 0, 'reset'
write(KEYS[1], circuit, ARGV[1], ARGV[2])
redis.call('DEL', KEYS[2], KEYS[3])
return 1
