-- An operator's word: the circuit is closed, or the gate open, for everybody, and what was learned is forgotten.
--
-- KEYS: circuit, window, probe; or gate.
-- ARGV: channel, tag.

if #KEYS == 1 then
  -- Who does not hear of it must not close it again for everybody with what it remembers.
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], 'opened', digits(now))
  redis.call('PEXPIRE', KEYS[1], KEEP)
  return redis.call('PUBLISH', ARGV[1], 'o ' .. ARGV[2])
end
local circuit = read(KEYS[1])
circuit.open, circuit.left, circuit.kind = false, 0, 'reset'
write(KEYS[1], circuit, ARGV[1], ARGV[2])
redis.call('DEL', KEYS[2], KEYS[3])
return 1
