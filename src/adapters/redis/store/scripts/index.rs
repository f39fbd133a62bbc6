//! The scripts about the sets that a store maintains.

use super::scripts;

scripts! {
    /// Deletes keys that a set names. KEYS 1: the set; 2 and on: the keys. ARGV 1: `UNLINK` or
    /// `DEL`; 2: `ZREM` or `SREM`; 3: n; then n members of the set. One name at a time: Lua cannot
    /// pass an unbounded number of arguments to one command. A key that is no string is left alone:
    /// another program has put it in the place of a value.
    DELETE_INDEXED = "
for i = 2, #KEYS do
  if redis.call('TYPE', KEYS[i]).ok == 'string' then redis.call(ARGV[1], KEYS[i]) end
end
for i = 4, 3 + ARGV[3] do redis.call(ARGV[2], KEYS[1], ARGV[i]) end
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
