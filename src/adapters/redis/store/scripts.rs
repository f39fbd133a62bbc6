//! Lua scripts: the decisions that Redis takes in one atomic step. Plain commands do the rest.
//!
//! The lease of a key is a random token under an internal name. A caller that finds its own token
//! there knows that the key was not deleted meanwhile: no two tokens are equal.
//!
//! | event | lease in Redis | publish under an earlier token |
//! | --- | --- | --- |
//! | load begins | stored, or adopted; extended if too little of its expiry is left | accepted |
//! | value is published | removed | refused |
//! | delete | removed | refused |
//! | write begins | replaced by an exclusive token | refused |
//! | expiry, eviction, restart without data | missing | refused |
//!
//! Redis puts its own time into each token. So a call that arrives a second time, because the
//! client retried it or because its first copy was delayed, never restores a token that a delete
//! has removed.
//!
//! Alternatives considered: a counter per key. Refused: when Redis forgets it, it restarts at a
//! number that an old load may hold.

use std::sync::LazyLock;

use redis::Cmd;

use super::keyspace::Keys;

/// The source of a script, and its SHA-1, by which Redis finds it once it has run it.
pub(crate) struct Script {
    pub(crate) source: &'static str,
    pub(crate) hash: String,
}

impl Script {
    fn new(source: &'static str) -> Self {
        Self { source, hash: redis::Script::new(source).get_hash().to_owned() }
    }

    /// Starts a call; the caller adds the arguments, of about `bytes` bytes. `keys` are the names
    /// of each value and its lease, `index_keys` those of the index and the lease set, if the store
    /// maintains them.
    ///
    /// | KEYS, for n values | content |
    /// | --- | --- |
    /// | 1 to n | values |
    /// | n + 1 to 2n | leases, in the same order |
    /// | 2n + 1 | index: sorted set of values by time of their write, if maintained |
    /// | 2n + 2 | lease set: sorted set of leases by their expiry, if maintained |
    pub(crate) fn call<'a>(
        &self,
        keys: impl Iterator<Item = &'a Keys> + Clone,
        index_keys: Option<[&str; 2]>,
        bytes: usize,
    ) -> Cmd {
        let (mut count, mut length) = (0, 0);
        for Keys { value, lease } in keys.clone() {
            (count, length) = (count + 2, length + value.len() + lease.len());
        }
        let index_keys = index_keys.as_ref().map_or(&[][..], |keys| keys);
        // With capacity for the arguments, so that they are rarely moved.
        let mut call = Cmd::with_capacity(3 * count + 16, length + bytes + 256);
        call.arg("EVALSHA").arg(&self.hash).arg(count + index_keys.len());
        let (values, leases) = (keys.clone().map(|it| &*it.value), keys.map(|it| &*it.lease));
        for key in values.chain(leases).chain(index_keys.iter().copied()) {
            call.arg(key);
        }
        call
    }
}

/// Start of the token of a write. No load adopts such a token.
pub(crate) const EXCLUSIVE: &str = "w:";

/// Remaining time that [`GET_OR_LEASE`] reports for a value longer than allowed.
pub(crate) const TOO_LONG: i64 = -3;

/// Defines each script as a static, whose hash is computed on first use. KEYS are those of
/// [`Script::call`] if the documentation of a script names no others.
macro_rules! scripts {
    ($($(#[$doc:meta])* $name:ident = $source:literal;)*) => {
        $(
            $(#[$doc])*
            pub(crate) static $name: LazyLock<Script> = LazyLock::new(|| Script::new($source));
        )*
    };
}

scripts! {
    /// Reads values, and takes a lease for each value that is not fresh.
    ///
    /// | ARGV | content |
    /// | --- | --- |
    /// | 1 | start of new tokens |
    /// | 2 | maximum bytes of a value |
    /// | 3 | bytes after which no more values are read |
    /// | 4 | n, the number of values |
    /// | 5 | values per `MGET`; 1: each value is read by a `GETRANGE` |
    /// | 6, 7, 8 | minimum lease ms, stale window ms, refresh (1 or 0) |
    /// | 9 and on | the same three for each further value; absent if equal for all |
    ///
    /// | reply, 3 items a value | content |
    /// | --- | --- |
    /// | value | false or empty: missing, too long, or not a string |
    /// | remaining ms | -1: no expiry; -2: missing; -3: too long |
    /// | token | false: the value is fresh; `''`: no lease available |
    /// | three times false | not read, the reply is full: the caller asks again |
    ///
    /// A full server gives no new lease; a server that accepts no writes replies with its error.
    /// The first write of the script stores a lease: after a first write even a full server accepts
    /// more, and would give leases that it has no room for.
    ///
    /// A lease lives 25 % longer than requested, so that a caller that adopts it soon writes
    /// nothing. One command per value and a reply of nested arrays would take twice the server
    /// time.
    GET_OR_LEASE = "
local call, try = redis.call, redis.pcall
local max_bytes, room, count = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local per_mget = tonumber(ARGV[5])
local lease_for, stale_for, refresh = ARGV[6], tonumber(ARGV[7]), ARGV[8] == '1'
local differ = #ARGV > 8
local lease_set = KEYS[2 * count + 2]
local time, now, removed_expired
local function longer(ms) return math.floor(ms * 1.25) end
local function take_lease(lease)
  local token = try('GET', lease)
  if type(token) == 'table' then return token end
  if not time then
    time = call('TIME')
    now = time[1] * 1000 + math.floor(time[2] / 1000)
  end
  if not token then
    token = ARGV[1] .. time[1] .. '.' .. time[2]
    local stored = try('SET', lease, token, 'PX', longer(lease_for))
    if stored.err then return string.sub(stored.err, 1, 3) == 'OOM' and '' or stored end
    if lease_set then
      if not removed_expired then call('ZREMRANGEBYSCORE', lease_set, '-inf', now) end
      removed_expired = true
      call('ZADD', lease_set, now + longer(lease_for), lease)
    end
  elseif string.sub(token, 1, 2) == 'w:' then
    return ''
  elseif call('PTTL', lease) < tonumber(lease_for) then
    call('PEXPIRE', lease, longer(lease_for))
    if lease_set then call('ZADD', lease_set, now + longer(lease_for), lease) end
  end
  return token
end
local values
local function read_value(i)
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
  local value, ttl, token = false, false, false
  if room > 0 then
    if differ then
      local at = 3 * i + 3
      lease_for, stale_for, refresh = ARGV[at], tonumber(ARGV[at + 1]), ARGV[at + 2] == '1'
    end
    value, ttl = read_value(i), MISSING
    if type(value) == 'string' then room = room - #value end
    if type(value) ~= 'string' or #value == 0 then
      value = false
    elseif #value > max_bytes then
      value, ttl = false, TOO_LONG
    else
      ttl = call('PTTL', KEYS[i])
    end
    if not value or refresh or (ttl ~= NO_EXPIRY and ttl <= stale_for) then
      token = take_lease(KEYS[count + i])
    end
  end
  replies[3 * i - 2], replies[3 * i - 1], replies[3 * i] = value, ttl, token
end
return replies
";

    /// Writes values, each under its lease.
    ///
    /// | ARGV | content |
    /// | --- | --- |
    /// | 1 | n, the number of values |
    /// | 2 | maximum number of entries; 0: unlimited |
    /// | 3, 4, 5 and on | token, value, time to live in ms, for each value |
    ///
    /// Replies with one item a value: 1, or 0 if the lease is missing or has another token.
    ///
    /// The first publish under a token uses it up. All tokens are checked before the first write,
    /// and errors after the tokens are used up are ignored: so if the call fails, each of its
    /// values can be published again by itself.
    ///
    /// Index maintenance: with probability min(1, n/8) the script samples 2 * max(8, n) members of
    /// the index and removes those whose value has expired. That is two members per published value
    /// on average, which keeps the index below about twice the number of live values.
    PUBLISH = "
local call, try = redis.call, redis.pcall
local count, max_entries = tonumber(ARGV[1]), tonumber(ARGV[2])
local index, lease_set = KEYS[2 * count + 1], KEYS[2 * count + 2]
local replies, used, is_used = {}, {}, {}
for i = 1, count do
  local lease = KEYS[count + i]
  replies[i] = 0
  if not is_used[lease] and call('GET', lease) == ARGV[3 * i] then
    replies[i], is_used[lease], used[#used + 1] = 1, true, lease
  end
end
if #used == 0 then return replies end
local time = index and call('TIME')
local now = time and time[1] * 1000 + math.floor(time[2] / 1000)
local written = {}
for i = 1, count do
  if replies[i] == 1 then
    call('SET', KEYS[i], ARGV[3 * i + 1], 'PX', ARGV[3 * i + 2])
    written[#written + 1] = now
    written[#written + 1] = KEYS[i]
  end
end
if index then call('ZADD', index, unpack(written)) end
call('DEL', unpack(used))
if not index then return replies end
try('ZREM', lease_set, unpack(used))
local sample = time[2] % 8 < #used and try('ZRANDMEMBER', index, 2 * math.max(8, #used))
if sample and not sample.err and try('EXISTS', unpack(sample)) ~= #sample then
  for _, name in ipairs(sample) do
    if try('EXISTS', name) == 0 then try('ZREM', index, name) end
  end
end
if max_entries > 0 then
  local excess = try('ZCARD', index) - max_entries
  if excess > 0 then
    local oldest = try('ZRANGE', index, 0, math.min(excess, 100) - 1)
    if type(try('UNLINK', unpack(oldest))) == 'number' then try('ZREM', index, unpack(oldest)) end
  end
end
return replies
";

    /// Removes a value and replaces its lease by an exclusive one. ARGV: start of the new token,
    /// time to live of the lease in ms.
    ///
    /// Replies with the token, or `''` if a full server has no room for it; the old lease is
    /// removed then too. The script stores the token first: after a first write even a full server
    /// accepts more.
    ACQUIRE_WRITE_LEASE = "
local time = redis.call('TIME')
local token = ARGV[1] .. time[1] .. '.' .. time[2]
local stored = redis.pcall('SET', KEYS[2], token, 'PX', ARGV[2])
redis.call('DEL', KEYS[1])
if KEYS[3] then redis.call('ZREM', KEYS[3], KEYS[1]) end
if stored.err then
  redis.call('DEL', KEYS[2])
  return ''
end
if KEYS[4] then
  redis.call('ZADD', KEYS[4], time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[2], KEYS[2])
end
return token
";

    /// Deletes values and their leases, and takes them out of the index. ARGV: n, the number of
    /// values; `UNLINK` or `DEL`.
    ///
    /// Needed only with an index: without one the plain command is enough. If the command fails,
    /// the script ends, so that the index never forgets a value that is still there.
    ///
    /// Alternatives considered: a transaction. Refused: a full server accepts no command for one,
    /// and deletes must work on a full server.
    DELETE = "
local count = tonumber(ARGV[1])
redis.call(ARGV[2], unpack(KEYS, 1, 2 * count))
redis.call('ZREM', KEYS[2 * count + 1], unpack(KEYS, 1, count))
return redis.call('ZREM', KEYS[2 * count + 2], unpack(KEYS, count + 1, 2 * count))
";

    /// Deletes a value if it equals ARGV 1, and leaves its lease. Replies with 1 if it was deleted,
    /// else 0.
    DELETE_IF_EQUALS = "
if redis.pcall('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
if KEYS[3] then redis.call('ZREM', KEYS[3], KEYS[1]) end
return 1
";

    /// Takes a lock. KEYS 1: the lock. ARGV: owner, time to live in ms. Replies with 1 if the owner
    /// holds it now, else 0. An owner that holds it already may take it again: the reply to its
    /// first call may have been lost.
    LOCK = "
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end
if redis.pcall('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
";

    /// Extends a lock. KEYS, ARGV and reply as for [`LOCK`].
    EXTEND_LOCK = "
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
";

    /// Releases a lock. KEYS 1: the lock. ARGV 1: owner. Replies with 1, or 0 if the owner had
    /// none.
    UNLOCK = "
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
";

    /// Deletes members of the index or of the lease set. KEYS 1: that set; 2 and on: its members.
    /// ARGV 1: `UNLINK` or `DEL`. One member at a time: Lua cannot pass an unbounded number of
    /// arguments to one command.
    DELETE_INDEXED = "
for i = 2, #KEYS do
  redis.call(ARGV[1], KEYS[i])
  redis.call('ZREM', KEYS[1], KEYS[i])
end
return 0
";

    /// Counts the values that exist, and takes the others out of the index. KEYS 1: the index.
    /// ARGV: members of it. Replies with the number of existing values.
    COUNT_EXISTING = "
local existing = 0
for _, name in ipairs(ARGV) do
  if redis.call('EXISTS', name) == 1 then existing = existing + 1
  else redis.call('ZREM', KEYS[1], name) end
end
return existing
";
}
