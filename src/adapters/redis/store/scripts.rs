//! What Redis does in one step. Plain commands where they suffice: scripts are for decisions.
//!
//! The epoch of a key is a random token, planted by the first who begins a load and adopted by
//! those who begin while it is there. Whoever has it knows that no delete has come since it was
//! planted, for a delete removes it, and no two are ever the same. A counter was refused: it
//! starts again where it was when Redis forgets it.
//!
//! A missing token refuses, whatever made it go: a delete, its time, an eviction, a restart.
//!
//! The server's time is part of a token, so that a call which is made again, by us or by the client
//! of a Cluster, or whose first copy hung somewhere and arrives at last, never plants what a delete
//! has removed.

use redis::Cmd;

pub(crate) struct Scripts {
    pub(crate) begin: Script,
    pub(crate) publish: Script,
    pub(crate) acquire_write_lease: Script,
    pub(crate) delete: Script,
    pub(crate) discard: Script,
    pub(crate) lock: Script,
    pub(crate) extend: Script,
    pub(crate) unlock: Script,
    pub(crate) remove: Script,
    pub(crate) clean: Script,
}

impl Scripts {
    pub(crate) fn new() -> Self {
        Self {
            begin: Script::new(BEGIN),
            publish: Script::new(PUBLISH),
            acquire_write_lease: Script::new(SEIZE),
            delete: Script::new(DELETE),
            discard: Script::new(DISCARD),
            lock: Script::new(LOCK),
            extend: Script::new(EXTEND),
            unlock: Script::new(UNLOCK),
            remove: Script::new(REMOVE),
            clean: Script::new(CLEAN),
        }
    }
}

/// A script, and the name that the server knows it by once it has run it.
pub(crate) struct Script {
    pub(crate) source: &'static str,
    pub(crate) hash: String,
}

impl Script {
    fn new(source: &'static str) -> Self {
        Self { source, hash: redis::Script::new(source).get_hash().to_owned() }
    }
}

impl Script {
    /// The call of a script about keys, to which arguments can be added: `names` gives the names of
    /// each value and its epoch, and `bytes` is how long the arguments will be, about. The keys are
    /// all values, all epochs, then the index and the set of epochs, where they are kept.
    pub(crate) fn call<'a>(
        &self,
        names: impl Iterator<Item = (&'a str, &'a str)> + Clone,
        sets: Option<[&str; 2]>,
        bytes: usize,
    ) -> Cmd {
        let (mut keys, mut length) = (0, 0);
        for (value, epoch) in names.clone() {
            (keys, length) = (keys + 2, length + value.len() + epoch.len());
        }
        let sets = sets.as_ref().map_or(&[][..], |sets| sets);
        // Mostly room for all, so that nothing is moved.
        let mut call = Cmd::with_capacity(3 * keys + 16, length + bytes + 256);
        call.arg("EVALSHA").arg(&self.hash).arg(keys + sets.len());
        for (value, _) in names.clone() {
            call.arg(value);
        }
        for (_, epoch) in names {
            call.arg(epoch);
        }
        for set in sets {
            call.arg(*set);
        }
        call
    }
}

/// The token of a write that is on its way: nobody adopts it.
pub(crate) const EXCLUSIVE: &str = "w:";

/// KEYS: the values, their epochs, then the sets. ARGV: the beginning of new tokens, the most bytes
/// of a value, the bytes after which no more are sent, how many values, how many of them to read by
/// one command; then how long the token is good, the stale window, refresh (1) or not: once if they
/// are the same for all, else for each. Gives three answers for each: value or false, remaining, and
/// the token or '', or false if the value is fresh. Three times false where it is to be asked for
/// again.
///
/// A value longer than allowed is not sent (-3 remaining), and read no further where each is read by
/// itself; what is no string is no value. A full server gives no token; one that takes no writes is
/// not the one to talk to, and says so. Nothing is written before the first token is: after a write
/// even a full server takes the next.
///
/// A token lives for a quarter longer than it must, so that who adopts it soon writes nothing.
///
/// What a script costs is its calls and what goes in and out: a command for each value and an answer
/// of answers take twice as long.
const BEGIN: &str = "
local call, try = redis.call, redis.pcall
local most, room, count = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local at_once = tonumber(ARGV[5])
local lease_for, stale_for, refresh = ARGV[6], tonumber(ARGV[7]), ARGV[8] == '1'
local differ = #ARGV > 8
local epochs = KEYS[2 * count + 2]
local time, now, swept
local function longer(span) return math.floor(span * 1.25) end
local function token_of(epoch)
  local token = try('GET', epoch)
  if type(token) == 'table' then return token end
  if not time then
    time = call('TIME')
    now = time[1] * 1000 + math.floor(time[2] / 1000)
  end
  if not token then
    token = ARGV[1] .. time[1] .. '.' .. time[2]
    local planted = try('SET', epoch, token, 'PX', longer(lease_for))
    if planted.err then return string.sub(planted.err, 1, 3) == 'OOM' and '' or planted end
    if epochs then
      if not swept then call('ZREMRANGEBYSCORE', epochs, '-inf', now) end
      swept = true
      call('ZADD', epochs, now + longer(lease_for), epoch)
    end
  elseif string.sub(token, 1, 2) == 'w:' then
    return ''
  elseif call('PTTL', epoch) < tonumber(lease_for) then
    call('PEXPIRE', epoch, longer(lease_for))
    if epochs then call('ZADD', epochs, now + longer(lease_for), epoch) end
  end
  return token
end
local values
local function value_of(i)
  local place = (i - 1) % at_once + 1
  if at_once > 1 and place == 1 then
    values = try('MGET', unpack(KEYS, i, math.min(i + at_once - 1, count)))
    if values.err then at_once = 1 end
  end
  if at_once == 1 then return try('GETRANGE', KEYS[i], 0, ARGV[2]) end
  return values[place]
end
local all = {}
for i = 1, count do
  local value, remaining, token = false, false, false
  if room > 0 then
    if differ then
      local at = 3 * i + 3
      lease_for, stale_for, refresh = ARGV[at], tonumber(ARGV[at + 1]), ARGV[at + 2] == '1'
    end
    value, remaining = value_of(i), -2
    if type(value) == 'string' then room = room - #value end
    if type(value) ~= 'string' or #value == 0 then
      value = false
    elseif #value > most then
      value, remaining = false, -3
    else
      remaining = call('PTTL', KEYS[i])
    end
    if not value or refresh or (remaining ~= -1 and remaining <= stale_for) then
      token = token_of(KEYS[count + i])
    end
  end
  all[3 * i - 2], all[3 * i - 1], all[3 * i] = value, remaining, token
end
return all
";

/// KEYS: the values, their epochs, then the sets. ARGV: how many values, the most entries (0: any
/// number); then for each the token, the value, how long it lives. Gives for each 1, or 0 where the
/// token is not the one that is there. The first to publish under a token uses it up. Nothing is
/// written before every token was looked at, and what may fail after the tokens are used up is
/// passed over: so where one call fails, all can be asked for again, each by itself.
///
/// For each value that comes two names of the index are looked at, sixteen one time in eight, and
/// go if their values have: so it holds about twice what there is at most.
const PUBLISH: &str = "
local call, try = redis.call, redis.pcall
local count, most = tonumber(ARGV[1]), tonumber(ARGV[2])
local index, epochs = KEYS[2 * count + 1], KEYS[2 * count + 2]
local all, used, is_used = {}, {}, {}
for i = 1, count do
  local epoch = KEYS[count + i]
  all[i] = 0
  if not is_used[epoch] and call('GET', epoch) == ARGV[3 * i] then
    all[i], is_used[epoch], used[#used + 1] = 1, true, epoch
  end
end
if #used == 0 then return all end
local time = index and call('TIME')
local now = time and time[1] * 1000 + math.floor(time[2] / 1000)
local places = {}
for i = 1, count do
  if all[i] == 1 then
    call('SET', KEYS[i], ARGV[3 * i + 1], 'PX', ARGV[3 * i + 2])
    places[#places + 1] = now
    places[#places + 1] = KEYS[i]
  end
end
if index then call('ZADD', index, unpack(places)) end
call('DEL', unpack(used))
if not index then return all end
try('ZREM', epochs, unpack(used))
local some = time[2] % 8 < #used and try('ZRANDMEMBER', index, 2 * math.max(8, #used))
if some and not some.err and try('EXISTS', unpack(some)) ~= #some then
  for _, name in ipairs(some) do
    if try('EXISTS', name) == 0 then try('ZREM', index, name) end
  end
end
if most > 0 then
  local beyond = try('ZCARD', index) - most
  if beyond > 0 then
    local oldest = try('ZRANGE', index, 0, math.min(beyond, 100) - 1)
    if type(try('UNLINK', unpack(oldest))) == 'number' then try('ZREM', index, unpack(oldest)) end
  end
end
return all
";

/// ARGV: the beginning of a new token, how long it is good. The token, or '' where there is no room
/// for it. It comes first: once a script has written anything, even a full server lets it write on.
const SEIZE: &str = "
local time = redis.call('TIME')
local token = ARGV[1] .. time[1] .. '.' .. time[2]
local planted = redis.pcall('SET', KEYS[2], token, 'PX', ARGV[2])
redis.call('DEL', KEYS[1])
if KEYS[3] then redis.call('ZREM', KEYS[3], KEYS[1]) end
if planted.err then
  redis.call('DEL', KEYS[2])
  return ''
end
if KEYS[4] then
  redis.call('ZADD', KEYS[4], time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[2], KEYS[2])
end
return token
";

/// KEYS: the values, their epochs, then the sets. ARGV: how many values, the command that removes.
/// Only where there is an index, which must not forget a value that stays: where there is none, the
/// command alone will do. A transaction was refused: a full server takes no command for one, and
/// deletes must work there.
const DELETE: &str = "
local count = tonumber(ARGV[1])
redis.call(ARGV[2], unpack(KEYS, 1, 2 * count))
redis.call('ZREM', KEYS[2 * count + 1], unpack(KEYS, 1, count))
return redis.call('ZREM', KEYS[2 * count + 2], unpack(KEYS, count + 1, 2 * count))
";

/// ARGV: the bytes.
const DISCARD: &str = "
if redis.pcall('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
if KEYS[3] then redis.call('ZREM', KEYS[3], KEYS[1]) end
return 1
";

/// KEYS: the lock. ARGV: the owner, for how long. The owner may ask again: the first time may have
/// had no answer.
const LOCK: &str = "
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end
if redis.pcall('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
";

/// KEYS: the lock. ARGV: the owner, for how long.
const EXTEND: &str = "
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
";

/// KEYS: the lock. ARGV: the owner.
const UNLOCK: &str = "
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
";

/// KEYS: the index or the set of epochs, names in it. ARGV: the command that removes. One name at
/// a time, for there may be more of them than Lua can pass on at once.
const REMOVE: &str = "
for i = 2, #KEYS do
  redis.call(ARGV[1], KEYS[i])
  redis.call('ZREM', KEYS[1], KEYS[i])
end
return 0
";

/// KEYS: the index. ARGV: names in it. Gives how many of them are there; the others go.
const CLEAN: &str = "
local there = 0
for _, name in ipairs(ARGV) do
  if redis.call('EXISTS', name) == 1 then there = there + 1
  else redis.call('ZREM', KEYS[1], name) end
end
return there
";
