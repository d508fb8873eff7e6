-- What wrk sends for ops/bench/peers.py, and what it tells at the end, as JSON.
--
--     wrk -t1 -c32 -d1s -s load.lua URL -- FILE hot|rotation|random|differing|new
--
-- FILE holds a token a line: `hot` sends the first, `rotation` all of them in turns, `random` any of
-- them, `differing` too, in requests that have a number of their own, `new` each of them once, and
-- stops when there are no more. Every request is written before the clock starts, but for the number.

local ffi = require("ffi")
ffi.cdef("struct timeval { long seconds; long micro; }; int gettimeofday(struct timeval *, void *);")
local clock = ffi.new("struct timeval")

local requests, at, mode = {}, 0, ""
local threads = {}
sent, began, over = 0, 0, 0

local function now()
   ffi.C.gettimeofday(clock, nil)
   return tonumber(clock.seconds) + tonumber(clock.micro) / 1e6
end

function setup(thread)
   threads[#threads + 1] = thread
end

function init(args)
   mode = args[2]
   for token in io.lines(args[1]) do
      requests[#requests + 1] = wrk.format("GET", nil, {
         ["Host"] = wrk.headers["Host"], ["Authorization"] = "Bearer " .. token,
      })
      if mode == "differing" then requests[#requests] = requests[#requests]:sub(1, -3) end
      if mode == "hot" then break end
   end
end

function request()
   if sent == 0 then began = now() end
   at = at + 1
   if at > #requests then
      -- Of `new`, one that was sent again would no longer be new; the last few do not matter.
      if mode == "new" and over == 0 then
         over = now()
         wrk.thread:stop()
      end
      at = 1
   end
   if mode == "random" or mode == "differing" then at = math.random(#requests) end
   sent = sent + 1
   if mode == "differing" then return requests[at] .. "X-Request-Id: " .. sent .. "\r\n\r\n" end
   return requests[at]
end

function done(summary, latency, rates)
   local errors, all, seconds = summary.errors, 0, summary.duration / 1e6
   for _, thread in ipairs(threads) do
      all = all + thread:get("sent")
      -- wrk itself sleeps on until the end of its time.
      if thread:get("over") > 0 then seconds = thread:get("over") - thread:get("began") end
   end
   io.stdout:write(string.format(
      '{"sent": %d, "answered": %d, "seconds": %.6f, "refused": %d, "failed": %d, ' ..
      '"p50": %d, "p99": %d, "p999": %d}\n',
      all, summary.requests, seconds, errors.status,
      errors.connect + errors.read + errors.write + errors.timeout,
      latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end
