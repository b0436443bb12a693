-- What one quota shows, as JSON; KEYS[1]: the quota. Changes nothing.
local raw = redis.call('GET', KEYS[1])
if not raw then return false end
local time = redis.call('TIME')
local quota = cmsgpack.unpack(raw)
local now = math.max(tonumber(time[1]) + tonumber(time[2]) / 1e6 + quota.shift, quota.at)
local full, processes = {}, {}
for place, bucket in ipairs(quota.buckets) do full[place] = bucket[5] - now end
for name, row in pairs(quota.rows) do
  processes[#processes + 1] = {name = name, admitted = row.admitted, in_flight = row.in_flight,
    deferred = row.deferred, waits = row.waits_until > now, seen_ago = now - row.seen}
end
return cjson.encode({limits = quota.text, full = full, cap = quota.cap, admitted = quota.admitted,
  closed = math.max(quota.closed - now, 0), processes = processes})
