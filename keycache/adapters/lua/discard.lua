-- Remove a record that was refused, if it is still that one (compare-and-delete).
-- KEYS[1] record
-- ARGV[1] the version that was refused; -1 for something that is no record
-- Returns how many were removed
own(KEYS[1], 'hash')
local version = math.floor(number(redis.call('HGET', KEYS[1], 'v'), 0, LARGEST) or -1)
if string.format('%.0f', version) ~= ARGV[1] then
  return 0
end
return redis.call('DEL', KEYS[1])
