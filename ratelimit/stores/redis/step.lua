-- One step of one process on the quota of one family of models.
--
-- KEYS[1]: the quota, one string. ARGV[1]: what the process asks, ARGV[2]: "" or what it
-- knows, for a quota that was emptied; `wire.py` has the layout of both and of the reply.
-- Each step has a number of its process: one that comes again, because its connection
-- broke, changes nothing and is answered as it was. Moments are seconds of this server's
-- clock; everything that comes and goes is in seconds from now.

local HORIZON = 0.25 -- seconds ahead for which a call is admitted, to go then
local PASSING = 0.25 -- seconds of rank by which calls may overtake those that wait
local TICKET = 1 -- seconds for which a place counts after its head should ask again
local ASK = 1 -- seconds after which a head asks again at the latest: others give back unseen
local POLL = 0.05 -- seconds until a head asks again that waits for another call's end
local BEHIND = 0.02 -- seconds at least until a head asks again that waits behind another
local DEAD = 10 -- seconds after which a process that is not seen holds nothing any more
local FORGOTTEN = 600 -- seconds after which it is forgotten, numbers of steps included
local STEP = 2 -- seconds by which a clock that is set looks different from one that runs
local KEPT = 3600 -- seconds for which a full quota is kept
local LONGEST = 32 * 86400 -- seconds for which any quota is kept

local huge, max, min = math.huge, math.max, math.min
local pack, unpack = struct.pack, struct.unpack
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6

local ask = ARGV[1]
local id, number, birth, version, elapsed, slack, first_slack, in_flight, borrowing, deferred,
  flags, count, at = unpack('<Bc0dddddddddBB', ask)
local seeded, keeps_ticket, ends = flags % 2 == 1, flags % 4 > 1, flags % 8 > 3
local names = {}
for place = 1, count do names[place], at = unpack('<Bc0', ask, at) end

local function new_bucket(name, amount, per, burst)
  local window = burst * per / amount
  return {name, amount, per, burst, now, 0, now, per / amount, window}
end
-- The places of a bucket's figures.
local NAME, AMOUNT, PER, BURST, FULL, CORRECTED, LOWERED, UNIT, WINDOW = 1, 2, 3, 4, 5, 6, 7, 8, 9

local function slack_of(bucket)
  local window = bucket[WINDOW]
  return min(max(slack, min(first_slack, window / 30)), window / 2)
end

local function read_limits()
  local text, concurrency, many
  text, concurrency, many, at = unpack('<I4c0dB', ask, at)
  local buckets, ahead = {}, {}
  for place = 1, many do
    local name, amount, per, burst, seconds
    name, amount, per, burst, seconds, at = unpack('<Bdddd', ask, at)
    buckets[place] = new_bucket(names[name], amount, per, burst)
    ahead[place] = seconds
  end
  return text, concurrency, buckets, ahead
end

local raw = redis.call('GET', KEYS[1])
local read, quota = true, nil
if raw then read, quota = pcall(cmsgpack.unpack, raw) end
if raw and not (read and type(quota) == 'table' and quota.birth) then
  return pack('<B', 2)
end
if not seeded and (not quota or (birth ~= 0 and birth ~= quota.birth)) then
  return pack('<B', 1)
end

local saved = 0
if quota then
  saved = quota.at
  now = now + quota.shift
  local gap = now - saved
  local passed = gap
  if gap < 0 then passed = 0 elseif gap > elapsed + STEP then passed = elapsed end
  quota.shift = quota.shift + passed - gap
  now = saved + passed
end
if seeded then
  local closed, given
  closed, given, at = unpack('<dI4c0', ask, at)
  local text, concurrency, buckets, ahead = read_limits()
  if not quota then
    quota = {birth = now, shift = 0, version = now, given = given, text = text,
      concurrency = concurrency, buckets = buckets, closed = now + closed, cap = -1,
      cap_until = huge, admitted = 0, rows = {}}
  end
  if birth ~= 0 then -- a process that knew an earlier quota knows what is owed
    for place, bucket in ipairs(buckets) do
      for _, held in ipairs(quota.buckets) do
        if held[NAME] == bucket[NAME] and held[PER] == bucket[PER] then
          held[FULL] = max(held[FULL], now + ahead[place])
        end
      end
    end
  end
end

-- What the processes hold, this one left out.
local others = {in_flight = 0, borrowing = 0, deferred = 0, processes = 0, waiting = 0}
local places = {} -- of the heads that wait: rank and cost
for name, row in pairs(quota.rows) do
  if row.seen < now - FORGOTTEN then
    quota.rows[name] = nil
  elseif name ~= id and row.seen >= now - DEAD then
    others.in_flight = others.in_flight + row.in_flight
    others.borrowing = others.borrowing + row.borrowing
    others.deferred = others.deferred + row.deferred
    others.processes = others.processes + 1
    if row.waits_until > now then
      others.waiting = others.waiting + 1
      places[#places + 1] = row
    end
  end
end

local row = quota.rows[id]
local again = row and number <= row.number
if not row then
  row = {number = 0, admitted = 0, rank = 0, waits_until = 0, need = {}, granted = ''}
end
quota.rows[id] = row

local function give(name, back)
  for _, bucket in ipairs(quota.buckets) do
    if bucket[NAME] == name then bucket[FULL] = max(bucket[FULL], now) - back * bucket[UNIT] end
  end
end

local function find(name, per)
  for _, bucket in ipairs(quota.buckets) do
    if bucket[NAME] == name and bucket[PER] == per then return bucket end
  end
end

-- Hold other limits; see `Buckets.replaced`.
local function replace(given, text, concurrency, buckets)
  if given == 1 then quota.given = text end
  for _, bucket in ipairs(buckets) do
    local old = find(bucket[NAME], bucket[PER])
    if old then
      local seconds = max(old[FULL] - now, 0)
      local late = min(seconds, slack_of(old))
      local owed = late + (seconds - late) / old[UNIT] * bucket[UNIT]
      local kept = min(owed, max(late + bucket[PER], seconds))
      bucket[FULL] = now + kept
      if seconds > 0 then
        local lowered = max(old[LOWERED] - now, 0) * owed / seconds
        bucket[LOWERED] = now + max(lowered - (owed - kept), 0)
      end
    elseif given == 1 then
      local owed = 0
      for _, other in ipairs(quota.buckets) do
        if other[NAME] == bucket[NAME] then
          owed = max(owed, max(other[FULL] - now, 0) / other[UNIT])
        end
      end
      bucket[FULL] = now + min(owed * bucket[UNIT], bucket[WINDOW])
    end
  end
  quota.text, quota.concurrency, quota.buckets = text, concurrency, buckets
  quota.version = quota.version + 1
end

local function change(kind, name, a, b)
  if kind == 1 then -- given back
    give(name, a)
  elseif kind == 2 or kind == 7 then -- headers have shown it, or it was spent elsewhere
    local bucket = find(name, a)
    if bucket then
      bucket[FULL] = max(bucket[FULL], now) + b
      if kind == 2 then
        bucket[CORRECTED] = bucket[CORRECTED] + b
        bucket[LOWERED] = max(bucket[LOWERED], now) + b
      end
    end
  elseif kind == 3 then
    quota.closed = max(quota.closed, now + a)
  elseif kind == 4 then
    quota.cap, quota.cap_until = a, now + b
  elseif kind == 5 then -- revert; see `Buckets.after_revert`
    for _, bucket in ipairs(quota.buckets) do
      local back = max(bucket[LOWERED] - now, 0)
      bucket[FULL], bucket[CORRECTED] = bucket[FULL] - back, bucket[CORRECTED] - back
      bucket[LOWERED] = now
    end
    quota.closed = now
  elseif kind == 6 then -- see `Buckets.after_spending`
    for _, bucket in ipairs(quota.buckets) do
      local missing = bucket[BURST] - (1 - a) * bucket[AMOUNT]
      if missing > 0 then
        bucket[FULL] = max(bucket[FULL], now + slack_of(bucket)) + missing * bucket[UNIT]
      end
    end
  else
    replace(a, read_limits())
  end
end

-- Return when an amount fits; see `Bucket.moment`.
local function moment(bucket, amount, defers, held)
  local fits, limit = bucket[FULL], bucket[AMOUNT]
  if amount > limit then return huge end
  if amount <= bucket[BURST] then fits = fits + amount * bucket[UNIT] - bucket[WINDOW] end
  local total = held + defers + amount
  if total == amount then return fits end
  if total <= limit then return max(fits, bucket[FULL] + total * bucket[UNIT] - bucket[PER]) end
  if held > 0 then return huge end
  return max(fits, bucket[FULL])
end

-- Admit one call, and return nil and when it goes; or return in how many seconds to ask
-- again.
local function take(call)
  if now >= quota.cap_until then quota.cap, quota.cap_until = -1, huge end
  local most = quota.cap > 0 and quota.cap or quota.concurrency
  local flying = others.in_flight + in_flight - others.borrowing - borrowing
  if most > 0 and flying >= most and not call.lent then return POLL end
  if quota.closed > now then return min(quota.closed - now, ASK) end

  local ahead, behind = {}, false
  for _, other in ipairs(places) do
    if other.rank < call.rank then
      behind = behind or other.rank < call.rank - PASSING
      for name, amount in pairs(other.need) do ahead[name] = (ahead[name] or 0) + amount end
    end
  end
  local goes, later = now, now
  for _, bucket in ipairs(quota.buckets) do
    local amount = call.amounts[bucket[NAME]]
    if amount and amount > 0 then
      local defers, held = 0, 0
      if bucket[NAME] == 'tokens' then
        defers, held = call.deferred, max(others.deferred + deferred - call.around, 0)
      end
      local fits = moment(bucket, amount - defers, defers, held)
      goes = max(goes, fits)
      later = max(later, fits + (ahead[bucket[NAME]] or 0) * bucket[UNIT])
    end
  end
  if goes == huge then return POLL end
  if behind or goes > now + HORIZON then
    return min(max(later - now - HORIZON / 2, BEHIND), ASK)
  end
  if goes > now + call.latest then return min(goes - now, ASK) end

  for _, bucket in ipairs(quota.buckets) do
    local amount = call.amounts[bucket[NAME]]
    if amount and amount > 0 then
      if bucket[NAME] == 'tokens' then amount = amount - call.deferred end
      bucket[FULL] = max(bucket[FULL], goes + slack_of(bucket)) + amount * bucket[UNIT]
    end
  end
  return nil, goes
end

local wait = -1
if again then
  wait = 0
else
  local changes, calls
  changes, at = unpack('<H', ask, at)
  for _ = 1, changes do
    local kind, name, a, b
    kind, name, a, b, at = unpack('<BBdd', ask, at)
    change(kind, names[name], a, b)
  end

  local granted = {}
  calls, at = unpack('<B', ask, at)
  if not keeps_ticket then row.waits_until = 0 end
  for _ = 1, calls do
    local rank, latest, lent, defers, around, many, name, amount
    rank, latest, lent, defers, around, many, at = unpack('<ddBddB', ask, at)
    local amounts = {}
    for _ = 1, many do
      name, amount, at = unpack('<Bd', ask, at)
      amounts[names[name]] = amount
    end
    local call = {rank = now + rank, latest = latest, lent = lent > 0, deferred = defers,
      around = around, amounts = amounts}
    local goes
    wait, goes = take(call)
    if wait then
      if not keeps_ticket then
        row.rank, row.waits_until, row.need = call.rank, now + wait + TICKET, call.amounts
      end
      break
    end
    wait = -1
    quota.admitted = quota.admitted + 1
    in_flight, deferred = in_flight + 1, deferred + call.deferred
    if call.lent then borrowing = borrowing + 1 end
    granted[#granted + 1] =
      pack('<ddd', goes - now, quota.admitted, others.in_flight + in_flight)
    for _, bucket in ipairs(quota.buckets) do
      granted[#granted + 1] = pack('<d', bucket[FULL] - bucket[CORRECTED])
    end
  end
  local grants = #granted / (1 + #quota.buckets)
  row.granted = pack('<BB', grants, #quota.buckets) .. table.concat(granted)
  row.number, row.in_flight, row.borrowing = number, in_flight, borrowing
  row.admitted = row.admitted + grants
  row.deferred = deferred
end
row.seen, quota.at = now, now

local lives = KEPT
local figures = {}
for place, bucket in ipairs(quota.buckets) do
  lives = max(lives, bucket[FULL] - now + KEPT)
  figures[place] = pack('<ddd', bucket[FULL], bucket[CORRECTED], bucket[LOWERED])
end
lives = min(max(lives, quota.closed - now), LONGEST)
if ends then quota.rows[id] = nil end
redis.call('SET', KEYS[1], cmsgpack.pack(quota), 'PX', math.ceil(lives * 1000))

local texts = ''
if version ~= quota.version then
  texts = pack('<I4', #quota.text) .. quota.text .. pack('<I4', #quota.given) .. quota.given
end
return pack('<Bdddddddddddddd', 0, now, quota.birth, quota.version, saved, quota.closed,
  quota.cap, quota.cap_until, quota.admitted, others.in_flight, others.borrowing,
  others.deferred, others.processes + 1, others.waiting, wait)
  .. pack('<B', #quota.buckets) .. table.concat(figures) .. row.granted .. texts
