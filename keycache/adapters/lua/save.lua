-- Keep a record, unless a newer version or a newer lease exists (compare-and-set by fence).
-- KEYS[1] record  KEYS[2] fence  KEYS[3] lease  KEYS[4] backoff
-- ARGV[1] version  ARGV[2] sealed bytes  ARGV[3] ms to keep it  ARGV[4] holder of the lease, or ''
-- ARGV[5] channel that wakes every worker
-- Returns 1 when it was kept, 0 when a newer one exists
local version = tonumber(ARGV[1])
own(KEYS[1], 'hash')
own(KEYS[2], 'string')
own(KEYS[3], 'string')
local fence = number(redis.call('GET', KEYS[2]), 0, LARGEST) or 0
local held = number(redis.call('HGET', KEYS[1], 'v'), 0, LARGEST) or 0
if fence > version or held >= version then
  return 0
end
redis.call('HSET', KEYS[1], 'v', ARGV[1], 'd', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
if ARGV[4] ~= '' and redis.call('GET', KEYS[3]) == ARGV[4] then
  redis.call('DEL', KEYS[3], KEYS[4])
end
redis.call('PUBLISH', ARGV[5], ARGV[1])
return 1
