//! The scripts about values and their sidecars.

use super::{scripts, trim::trim};

/// Defines the Lua function that remembers the key of a lease or negative entry, for deletes by
/// pattern, in the set of the present 16 seconds, for `ttl` ms. It returns false if the server
/// takes no writes, as it may if the script has written nothing before.
macro_rules! remember {
    () => {
        "
local function remember(sets, name, key_at, now, ttl)
  local set, key = sets .. math.floor(now / 16000) % 4, string.sub(name, key_at)
  local added = redis.pcall('SADD', set, key)
  if type(added) == 'table' then
    if not string.find(added.err, 'WRONGTYPE', 1, true) then return false end
    redis.pcall('DEL', set)
    redis.pcall('SADD', set, key)
  end
  if redis.call('PTTL', set) < tonumber(ttl) then redis.call('PEXPIRE', set, ttl + 16000) end
  return true
end
local function milliseconds(time) return time[1] * 1000 + math.floor(time[2] / 1000) end
"
    };
}

scripts! {
    /// Reads values, and takes a lease for each key that has to be loaded.
    ///
    /// | ARGV | content |
    /// | --- | --- |
    /// | 1 | start of new tokens, a number |
    /// | 2 | maximum bytes of a value |
    /// | 3 | bytes after which no more values are read |
    /// | 4 | n, the number of values |
    /// | 5 | values per `MGET`; 1: each value is read by a `GETRANGE` |
    /// | 6, 7 | bytes of the prefix, names per value in KEYS |
    /// | 8, 9 | minimum lease ms, sum of flags |
    /// | 10 and on | the same two for each further value; absent if equal for all |
    ///
    /// | flag | meaning |
    /// | --- | --- |
    /// | 1 | a lease is taken whatever there is (a refresh) |
    /// | 2 | the window of a value, and a copy, are read |
    /// | 4 | a negative entry is an answer |
    /// | 8 | no lease is taken, and no copy is read |
    /// | 16 | the script says whether the copy is of the value, and removes it if not |
    ///
    /// | reply, 4 items a value | content |
    /// | --- | --- |
    /// | value | false or empty: missing, too long, or not a string; see the last item |
    /// | remaining ms of it | -1: no expiry; -2: missing; -3: too long |
    /// | token | false: no load is needed; `''`: no lease available; a number: see below |
    /// | window of the value in ms, or the copy of a value that expired | false: none |
    /// | four times false | not read, the reply is full: the caller asks again |
    ///
    /// A server that accepts no writes now (it is full, lacks replicas, or cannot save) gives no
    /// new lease; another error of a lease is the token of the reply. The first write of the script
    /// stores a lease: after a first write even a full server accepts more, and would give leases
    /// that it has no room for.
    ///
    /// A lease lives 25 % longer than requested, so that a caller that adopts it soon writes
    /// nothing. One command per value and a reply of nested arrays would take twice the server
    /// time.
    ///
    /// The first lines answer a hit of a single request, and a miss that needs nothing but a new
    /// lease, before a function is defined: with the definitions a miss and its write take 1.1
    /// times the time. What these lines cannot do, they leave to the rest. If there is a copy, the
    /// last two items are its remaining ms and its head, and the caller says whether it is of the
    /// value ([`window_of`](super::super::copy_head::window_of)); if not, it asks again with the
    /// flag 16. Measured against a hit without a copy (Redis 7.0, CPU time of the server): 1.1
    /// times; with the same check in the script 1.3 times.
    GET_OR_LEASE = concat!("
local call, try = redis.call, redis.pcall
local max_bytes, room, count = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local has_copies, lease_for, flags = ARGV[7] == '3', ARGV[8], tonumber(ARGV[9])
local first
if count == 1 and flags % 2 == 0 then
  first = try('GETRANGE', KEYS[1], 0, ARGV[2])
  if type(first) == 'string' and #first > 0 and #first <= max_bytes then
    local ttl = call('PTTL', KEYS[1])
    if not has_copies or ttl == -1 then return {first, ttl, false, false} end
    local head = try('GETRANGE', KEYS[3], 0, 35)
    if head == '' then return {first, ttl, false, 0} end
    if type(head) == 'string' and flags < 16 then
      return {first, ttl, call('PTTL', KEYS[3]), head}
    end
  end
  if first == '' and not has_copies and flags < 8 and not try('GET', KEYS[2]) then
    local time, ms, sets = call('TIME'), math.floor(lease_for * 1.25), KEYS[5]
    local token = ARGV[1] .. string.sub(time[1], -6) .. string.format('%06d', time[2])
    if not try('SET', KEYS[2], token, 'PX', ms).err then
      local set = sets and sets .. math.floor(time[1] / 16) % 4
      local added = not set or try('SADD', set, string.sub(KEYS[1], tonumber(ARGV[6]) + 1))
      if type(added) ~= 'table' then
        if set and call('PTTL', set) < ms then call('PEXPIRE', set, ms + 16000) end
        return {false, -2, token, false}
      end
      try('DEL', KEYS[2])
    end
  end
end
", remember!(), "
local per_mget, key_at = tonumber(ARGV[5]), tonumber(ARGV[6]) + 1
local differ = #ARGV > 9
local lease_sets = KEYS[ARGV[7] * count + 3]
local time, now
local function read_time()
  time = time or call('TIME')
  now = milliseconds(time)
end
local function longer(ms) return math.floor(ms * 1.25) end
local function takes_no_writes(error)
  for _, code in ipairs({'OOM', 'NOREPLICAS', 'MISCONF'}) do
    if string.find(error, code, 1, true) then return true end
  end
end
local function take_lease(name, lease, token)
  read_time()
  if not token then
    token = ARGV[1] .. string.sub(time[1], -6) .. string.format('%06d', time[2])
    local stored = try('SET', lease, token, 'PX', longer(lease_for))
    if stored.err then return takes_no_writes(stored.err) and '' or stored end
  elseif string.sub(token, 1, 1) == '-' then
    return ''
  elseif call('PTTL', lease) >= tonumber(lease_for)
    or try('PEXPIRE', lease, longer(lease_for)) ~= 1 then
    return token
  end
  if lease_sets and not remember(lease_sets, name, key_at, now, longer(lease_for)) then
    try('DEL', lease)
    return ''
  end
  return token
end
local function read_head(copy)
  local head = try('GETRANGE', copy, 0, 35)
  return type(head) == 'string' and string.sub(head, 1, 1) == '1' and head
end
local function read_window(copy, ttl, size)
  local head = read_head(copy)
  if not head then return 0 end
  local expiry = milliseconds(call('TIME')) + ttl
  local is_of = size == tonumber(string.sub(head, 27, 36))
    and math.abs(expiry - (tonumber(string.sub(head, 2, 14)) or 0)) <= 2
  if is_of then return tonumber(string.sub(head, 15, 26)) end
  -- In a script the clock of PTTL may stand still while that of TIME does not.
  if size ~= tonumber(string.sub(head, 27, 36))
    or math.abs(expiry - (tonumber(string.sub(head, 2, 14)) or 0)) > 20 then
    try('DEL', copy)
  end
  return 0
end
local function read_copy(copy, is_read)
  local head = read_head(copy)
  local expiry = head and tonumber(string.sub(head, 2, 14))
  if not expiry then return false, -2 end
  read_time()
  if now < expiry - 2 then
    try('DEL', copy)
    return false, -2
  end
  if not is_read then return false, -2 end
  local bytes = try('GETRANGE', copy, 36, 36 + max_bytes)
  if type(bytes) ~= 'string' or #bytes > max_bytes then return false, -2 end
  room = room - #bytes
  return bytes, call('PTTL', copy)
end
local values
local function read_value(i)
  if first ~= nil then return first end
  local place = (i - 1) % per_mget + 1
  if per_mget > 1 and place == 1 then
    values = try('MGET', unpack(KEYS, i, math.min(i + per_mget - 1, count)))
    if values.err then per_mget = 1 end
  end
  if per_mget == 1 then return try('GETRANGE', KEYS[i], 0, ARGV[2]) end
  return values[place]
end
local MISSING, TOO_LONG, NO_EXPIRY = -2, -3, -1
local replies = {}
for i = 1, count do
  local value, ttl, token, window = false, false, false, false
  if room > 0 then
    if differ then
      local at = 2 * i + 6
      lease_for, flags = ARGV[at], tonumber(ARGV[at + 1])
    end
    local refresh, with_copy = flags % 2 == 1, has_copies and flags % 4 >= 2
    value, ttl = read_value(i), MISSING
    if type(value) == 'string' then room = room - #value end
    if type(value) ~= 'string' or #value == 0 then
      value = false
    elseif #value > max_bytes then
      value, ttl = false, TOO_LONG
    else
      ttl = call('PTTL', KEYS[i])
    end
    if value and with_copy and ttl ~= NO_EXPIRY then
      window = read_window(KEYS[2 * count + i], ttl, #value)
    end
    if not value or refresh then
      local lease = KEYS[count + i]
      local old = try('GET', lease)
      if type(old) == 'table' then
        try('DEL', lease)
        old = false
      end
      if old == '0' and not refresh and flags % 8 >= 4 then
        ttl = call('PTTL', lease)
      else
        if not value and with_copy and ttl == MISSING then
          window, ttl = read_copy(KEYS[2 * count + i], flags % 16 < 8)
        end
        token = flags % 16 >= 8 and '' or take_lease(KEYS[i], lease, old ~= '0' and old)
      end
    end
  end
  local at = 4 * i - 3
  replies[at], replies[at + 1], replies[at + 2], replies[at + 3] = value, ttl, token, window
end
return replies
");

    /// Writes values and negative entries, each under its lease.
    ///
    /// | ARGV | content |
    /// | --- | --- |
    /// | 1 | n, the number of values |
    /// | 2 | maximum number of entries; 0: unlimited |
    /// | 3 | start of the names of copies |
    /// | 4 | bytes of the prefix |
    /// | 5 to 8 and on | token, value, ttl and window in ms, for each |
    ///
    /// A window of -1 stands for a negative entry; with a ttl of 0 the key is only removed.
    ///
    /// Replies with one item a value: 1, or 0 if the lease is missing or has another token.
    ///
    /// The first publish under a token uses it up. All tokens are checked before the first write,
    /// and errors after the values are written are ignored: so if the call fails, each of its
    /// values can be published again by itself.
    ///
    /// Index maintenance: with probability min(1, n/8) the script samples 2 * max(8, n) members of
    /// the index and removes those whose value has expired. That is two members per published value
    /// on average, which keeps the index below about twice the number of live values.
    PUBLISH = concat!(remember!(), "
local call, try = redis.call, redis.pcall
local count, max_entries, key_at = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[4]) + 1
local index, sidecars = KEYS[3 * count + 1], KEYS[3 * count + 2]
local lease_sets = KEYS[3 * count + 3]
local replies, used, is_used, keeps = {}, {}, {}, index
for i = 1, count do
  local lease = KEYS[count + i]
  local token = try('GET', lease)
  replies[i] = 0
  if not is_used[lease] and token == ARGV[4 * i + 1] then
    replies[i], is_used[lease], used[#used + 1] = 1, true, i
    if ARGV[4 * i + 4] ~= '0' then keeps = true end
  end
end
if #used == 0 then return replies end
local time = keeps and call('TIME')
local now = time and milliseconds(time)
local written, removed, kept = {}, {}, {}
for _, i in ipairs(used) do
  local ttl, window = ARGV[4 * i + 3], tonumber(ARGV[4 * i + 4])
  if window == -1 then
    removed[#removed + 1] = KEYS[i]
  elseif window == 0 then
    call('SET', KEYS[i], ARGV[4 * i + 2], 'PX', ttl)
  else
    call('SET', KEYS[i], ARGV[4 * i + 2], 'PXAT', now + ttl)
  end
  if window ~= -1 and index then
    written[#written + 1] = now
    written[#written + 1] = KEYS[i]
  end
end
for _, i in ipairs(used) do
  local value, ttl, window = ARGV[4 * i + 2], ARGV[4 * i + 3], tonumber(ARGV[4 * i + 4])
  local lease, copy = KEYS[count + i], KEYS[2 * count + i]
  if window == -1 then
    local is_stored = ttl ~= '0' and not try('SET', lease, '0', 'PX', ttl).err
    if not is_stored then
      removed[#removed + 1] = lease
    elseif tonumber(ttl) > 40000 then
      kept[#kept + 1] = now + ttl
      kept[#kept + 1] = lease
    elseif lease_sets then
      remember(lease_sets, KEYS[i], key_at, now, ttl)
    end
  else
    removed[#removed + 1] = lease
  end
  local stored
  if window > 0 then
    local head = string.format('1%013.0f%012.0f%010.0f', now + ttl, window, #value)
    stored = try('SET', copy, head .. value, 'PXAT', now + ttl + window)
  end
  if stored and not stored.err then
    kept[#kept + 1] = now + ttl + window
    kept[#kept + 1] = copy
  else
    removed[#removed + 1] = copy
  end
end
if #removed > 0 then try('DEL', unpack(removed)) end
if not index then return replies end
if #written > 0 then try('ZADD', index, unpack(written)) end
if #kept > 0 then
  try('ZADD', sidecars, unpack(kept))
  try('ZREMRANGEBYSCORE', sidecars, '-inf', now)
end
local sample = time[2] % 8 < #used and try('ZRANDMEMBER', index, 2 * math.max(8, #used))
if sample and not sample.err and try('EXISTS', unpack(sample)) ~= #sample then
  for _, name in ipairs(sample) do
    if try('EXISTS', name) == 0 then try('ZREM', index, name) end
  end
end
if max_entries == 0 then return replies end
", trim!(), "
trim(index)
trim(sidecars)
return replies
");

    /// Removes a value with its sidecar, and stores an exclusive lease. ARGV: start of the new
    /// token, time to live of the lease in ms, bytes of the prefix.
    ///
    /// Replies with the token, or `''` if a full server has no room for it; the old lease is
    /// removed then too. The script stores the token first: after a first write even a full server
    /// accepts more.
    ACQUIRE_WRITE_LEASE = concat!(remember!(), "
local time = redis.call('TIME')
local token = ARGV[1] .. string.sub(time[1], -6) .. string.format('%06d', time[2])
local stored = redis.pcall('SET', KEYS[2], token, 'PX', ARGV[2])
redis.call('DEL', KEYS[1], KEYS[3])
if KEYS[4] then redis.pcall('ZREM', KEYS[4], KEYS[1]) end
if stored.err then
  redis.call('DEL', KEYS[2])
  return ''
end
if KEYS[6] then remember(KEYS[6], KEYS[1], ARGV[3] + 1, milliseconds(time), ARGV[2]) end
return token
");

    /// Extends a lease, if it has the token ARGV 1, to ARGV 2 ms from now; ARGV 3: bytes of the
    /// prefix. Replies with 1, or 0 if the lease is missing or has another token.
    EXTEND_LEASE = concat!(remember!(), "
if redis.pcall('GET', KEYS[2]) ~= ARGV[1] then return 0 end
if redis.call('PTTL', KEYS[2]) < tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[2], ARGV[2]) end
local sets, now = #KEYS > 2 and KEYS[#KEYS], milliseconds(redis.call('TIME'))
if sets and not remember(sets, KEYS[1], ARGV[3] + 1, now, ARGV[2]) then
  redis.call('DEL', KEYS[2])
  return 0
end
return 1
");

    /// Deletes values with their sidecars, and takes them out of the sets. ARGV: n, the number of
    /// values; `UNLINK` or `DEL`.
    ///
    /// Needed only with an index: without one the plain command is enough. If the command fails,
    /// the script ends, so that the index never forgets a value that is still there.
    ///
    /// Alternatives considered: a transaction. Refused: a full server accepts no command for one,
    /// and deletes must work on a full server.
    DELETE = "
local count = tonumber(ARGV[1])
redis.call(ARGV[2], unpack(KEYS, 1, 3 * count))
redis.pcall('ZREM', KEYS[3 * count + 1], unpack(KEYS, 1, count))
redis.pcall('ZREM', KEYS[3 * count + 2], unpack(KEYS, 2 * count + 1, 3 * count))
return 1
";

    /// Deletes the value if it equals ARGV 1, and the copy if it is one of those bytes; leaves the
    /// lease. Replies with 1 if something was deleted, else 0.
    DELETE_IF_EQUALS = "
local is_value = redis.pcall('GET', KEYS[1]) == ARGV[1]
if not is_value and redis.pcall('GETRANGE', KEYS[3], 36, -1) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[3])
if is_value then redis.call('DEL', KEYS[1]) end
if KEYS[4] and is_value then redis.pcall('ZREM', KEYS[4], KEYS[1]) end
if KEYS[5] then redis.pcall('ZREM', KEYS[5], KEYS[3]) end
return 1
";
}
