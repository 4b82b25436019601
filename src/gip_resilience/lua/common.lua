-- Stands before every script. Time is the server's, in whole milliseconds; what goes out is how much is left of
-- something, so no client's clock matters. Numbers that come in are not believed: all are bounded here.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function number(text, least, most)
  local value = tonumber(text)
  if not value or value ~= value then return least end
  return math.floor(math.max(least, math.min(most, value)))
end

local function digits(value)
  return string.format('%.0f', value)
end

-- What is left of `length` milliseconds that end at `ending`: never more than all of it, should the clock be set back.
local function left(ending, length)
  ending, length = tonumber(ending), tonumber(length)
  if not ending or not length then return 0 end
  return math.max(0, math.min(ending - now, length))
end

-- A circuit's record: an open one is kept beyond its open time, because half-open is what comes then.
local KEEP = 60000
local DAY = 86400000

local function read(key)
  local record = redis.call('HMGET', key, 'state', 'version', 'until', 'length', 'kind')
  local circuit = {
    open = record[1] == 'open', version = record[2] or '0', left = left(record[3], record[4]), kind = record[5] or '',
  }
  return circuit
end

-- A version is greater than the one before it, and, where that one is forgotten, than any there was.
local function later(version)
  return digits(math.max((tonumber(version) or 0) + 1, time[1] * 1000000 + time[2]))
end

local function write(key, circuit, channel, tag)
  circuit.version = later(circuit.version)
  redis.call('HSET', key, 'state', circuit.open and 'open' or 'closed', 'version', circuit.version,
    'until', digits(now + circuit.left), 'length', digits(circuit.left), 'kind', circuit.kind)
  redis.call('PEXPIRE', key, digits(circuit.left + KEEP))
  redis.call('PUBLISH', channel, table.concat(
    {'c', tag, circuit.version, circuit.open and 'open' or 'closed', digits(circuit.left), circuit.kind}, ' '))
end

local function answer(circuit, ...)
  return {circuit.open and 1 or 0, circuit.version, circuit.left, circuit.kind, ...}
end
