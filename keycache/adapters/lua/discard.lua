-- Remove a record that was refused, if it is still that one (compare-and-delete).
-- KEYS[1] record
-- ARGV[1] the version that was refused; -1 for something that is no record
-- Returns how many were removed
if redis.call('TYPE', KEYS[1]).ok == 'hash' then
  local held = tonumber(redis.call('HGET', KEYS[1], 'v') or '') or -1
  if string.format('%.0f', held) ~= ARGV[1] then
    return 0
  end
end
return redis.call('DEL', KEYS[1])
