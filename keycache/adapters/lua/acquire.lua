-- Take the lease, if it is free, nothing failed a moment ago, and the budget allows the attempt.
-- KEYS[1] lease  KEYS[2] fence  KEYS[3] backoff  KEYS[4] budget: hash {left, at (ms)}
-- KEYS[5] record: hash {v: version}
-- ARGV[1] holder  ARGV[2] lease in ms  ARGV[3] floor: the newest version the caller has seen
-- ARGV[4] capacity of the budget, 0: not paid for  ARGV[5] ms until one more attempt is allowed
-- ARGV[6] the version of the record when the caller looked
-- Returns {'granted', version, left}
--   or {'shared' | 'held' | 'backing_off' | 'exhausted', ms until it may be tried, left}
--   left: thousandths of an attempt left in the budget; -1 where the budget was not looked at
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
own(KEYS[1], 'string')
own(KEYS[2], 'string')
own(KEYS[3], 'hash')
own(KEYS[4], 'hash')
-- Between the caller's look and this step another worker may have saved its answer and given the
-- lease back: then there is something newer to look at, and nothing to fetch.
own(KEYS[5], 'hash')
local saved = number(redis.call('HGET', KEYS[5], 'v'), 0, LARGEST)
if saved and saved > tonumber(ARGV[6]) then
  return {'shared', 0, -1}
end
local left = redis.call('PTTL', KEYS[1])
if left > 0 then
  return {'held', left, -1}
end
local capacity, refill = tonumber(ARGV[4]), tonumber(ARGV[5])
local rest = -1
if capacity > 0 then
  local pause = number(redis.call('HGET', KEYS[3], 'until'), 0, now + DAY) or 0
  if pause > now then
    return {'backing_off', pause - now, -1}
  end
  local bucket = redis.call('HMGET', KEYS[4], 'left', 'at')
  local tokens, at = number(bucket[1], 0, capacity), number(bucket[2], 0, now + DAY)
  if tokens and at then
    tokens = math.min(capacity, tokens + math.max(0, now - at) / refill)
  else
    tokens = capacity
  end
  local enough = tokens >= 1
  if enough then
    tokens = tokens - 1
  end
  redis.call('HSET', KEYS[4], 'left', string.format('%.6f', tokens), 'at', string.format('%.0f', now))
  redis.call('PEXPIRE', KEYS[4], math.ceil(capacity * refill))
  rest = math.floor(tokens * 1000)
  if not enough then
    return {'exhausted', math.ceil((1 - tokens) * refill), rest}
  end
end
-- The version is the time of the grant, and always larger than every one before it.
local fence = number(redis.call('GET', KEYS[2]), 0, now + DAY) or 0
local version = math.max(fence + 1, tonumber(ARGV[3]) + 1, now)
redis.call('SET', KEYS[2], string.format('%.0f', version), 'PX', 7 * DAY)
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return {'granted', version, rest}
