-- Read a record, unless the caller has it already.
-- KEYS[1] record: hash {v: version, d: sealed bytes}
-- ARGV[1] the version the caller knows
-- Returns {version or 0, sealed bytes or false, time in ms}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local kind = redis.call('TYPE', KEYS[1]).ok
if kind == 'none' then
  return {0, false, now}
end
if kind ~= 'hash' then
  return {-1, '', now} -- not ours: the caller refuses it, and has it discarded
end
local version = math.floor(number(redis.call('HGET', KEYS[1], 'v'), 0, LARGEST) or -1)
if string.format('%.0f', version) == ARGV[1] then
  return {version, false, now}
end
if redis.call('HSTRLEN', KEYS[1], 'd') > 4194304 then
  return {version, '', now} -- no record of ours is so long: do not send it
end
return {version, redis.call('HGET', KEYS[1], 'd') or '', now}
