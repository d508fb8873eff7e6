-- Give the lease back after a failure, and let nobody try for a while.
-- KEYS[1] lease  KEYS[2] backoff: hash {failures, until (ms)}
-- ARGV[1] holder  ARGV[2] least pause in ms  ARGV[3] greatest pause in ms  ARGV[4] chance in 0 … 1
-- Returns ms until the next attempt is allowed
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
own(KEYS[1], 'string')
own(KEYS[2], 'hash')
if redis.call('GET', KEYS[1]) == ARGV[1] then
  redis.call('DEL', KEYS[1])
end
local failures = (number(redis.call('HGET', KEYS[2], 'failures'), 0, LARGEST) or 0) + 1
local longest = math.min(tonumber(ARGV[3]), tonumber(ARGV[2]) * 2 ^ math.min(failures - 1, 32))
local pause = math.floor(tonumber(ARGV[4]) * longest)
redis.call(
  'HSET', KEYS[2],
  'failures', string.format('%.0f', failures),
  'until', string.format('%.0f', now + pause)
)
redis.call('PEXPIRE', KEYS[2], 2 * tonumber(ARGV[3]))
return pause
