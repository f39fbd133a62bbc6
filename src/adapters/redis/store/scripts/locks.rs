//! The scripts about the lock of a key. KEYS 1 is the lock.

use super::scripts;

scripts! {
    /// Takes a lock. ARGV: owner, time to live in ms, the owner for which the caller has waited.
    ///
    /// | reply | meaning |
    /// | --- | --- |
    /// | `''` | the owner of this call has the lock now |
    /// | `=..` | the owner waited for has released it, and its load ended so: see [`UNLOCK`] |
    /// | another text | the owner that has the lock |
    ///
    /// An owner that has the lock already keeps it: the reply to its first call may have been lost.
    LOCK = "
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return '' end
local held = redis.pcall('GET', KEYS[1])
if type(held) == 'string' and held ~= ARGV[1] then
  local ended, by = string.match(held, '^(=%S+) (.*)$')
  if not ended then return held end
  if by == ARGV[3] then return ended end
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return ''
";

    /// Extends a lock. ARGV: owner, time to live in ms. Replies with 1 if the owner has it, else 0.
    EXTEND_LOCK = "
if redis.pcall('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
";

    /// Releases a lock. ARGV: owner; how its load ended: `=failed`, `=missing:` and the token of
    /// its lease, or `''`. Such an end stays for one second. Replies with 1, or 0 if the owner had
    /// no lock.
    UNLOCK = "
if redis.pcall('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[2] == '' then return redis.call('DEL', KEYS[1]) end
if redis.pcall('SET', KEYS[1], ARGV[2] .. ' ' .. ARGV[1], 'PX', 1000).err then
  return redis.call('DEL', KEYS[1])
end
return 1
";
}
