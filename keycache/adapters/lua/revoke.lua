-- Keep a list of revocations, if the one that the caller has read is still there (compare-and-set).
-- KEYS[1] revoked: hash {v: version, d: sealed bytes}
-- ARGV[1] the version that the caller has read (see load.lua)  ARGV[2] version  ARGV[3] sealed bytes
-- ARGV[4] ms to keep it  ARGV[5] channel that wakes every worker
-- Returns 1 when it was kept, 0 when there is another list
own(KEYS[1], 'hash')
local held = 0
if redis.call('TYPE', KEYS[1]).ok ~= 'none' then
  held = math.floor(number(redis.call('HGET', KEYS[1], 'v'), 0, LARGEST) or -1)
end
if string.format('%.0f', held) ~= ARGV[1] then
  return 0
end
redis.call('HSET', KEYS[1], 'v', ARGV[2], 'd', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('PUBLISH', ARGV[5], ARGV[2])
return 1
