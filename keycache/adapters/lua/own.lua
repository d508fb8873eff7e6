-- Stands before every step. What our keys hold may have been written by anybody, so nothing there
-- may stop a step for good: rubbish is as good as nothing, and is overwritten.

-- Remove a value of another type than `kind`, on which our commands would fail.
local function own(key, kind)
  local held = redis.call('TYPE', key).ok
  if held ~= kind and held ~= 'none' then
    redis.call('DEL', key)
  end
end

-- The number in `text` if it lies within these bounds (NaN lies in none), or nil.
local function number(text, least, greatest)
  local value = tonumber(text or '')
  if value and value >= least and value <= greatest then
    return value
  end
end

local LARGEST = 2 ^ 53 -- a Lua number counts no further
local DAY = 86400000 -- in ms: what lies more than a day ahead was written by no clock of ours
