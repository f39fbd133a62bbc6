//! The part of the script of a publication that keeps the number of entries within its bound.

/// Defines the Lua function that removes the oldest members of a sorted set, and their keys, until
/// at most `max_entries` are left, or 100 are removed. A value takes its copy along.
///
/// The name of a copy follows from that of its value (`keyspace.rs`), unless the latter has braces
/// that enclose nothing, or only one: then the copy has a number in its name, and stays until its
/// window or the bound on copies ends it.
macro_rules! trim {
    () => {
        "
local prefix = string.sub(KEYS[1], 1, key_at - 1)
local function tag_of(name)
  local tag = string.match(name, '{([^}]*)}')
  return tag ~= '' and tag
end
local function copy_of(name)
  local key = string.sub(name, key_at)
  if tag_of(prefix) then return ARGV[3] .. key end
  if not string.find(name, '[{}]') then return ARGV[3] .. '{' .. name .. '}' end
  local tag = tag_of(name)
  return tag and ARGV[3] .. '{' .. tag .. '}:' .. key or nil
end
local function trim(set)
  local excess = try('ZCARD', set)
  excess = type(excess) == 'number' and excess - max_entries or 0
  if excess <= 0 then return end
  local oldest = try('ZRANGE', set, 0, math.min(excess, 100) - 1)
  local names, copies = {}, {}
  for _, name in ipairs(oldest) do
    -- Another program may have put a name or a key there that is none of the cache.
    if string.sub(name, 1, key_at - 1) == prefix then
      if try('TYPE', name).ok == 'string' then names[#names + 1] = name end
      if set == index then copies[#copies + 1] = copy_of(name) end
    end
  end
  for _, copy in ipairs(copies) do names[#names + 1] = copy end
  if #names == 0 or type(try('UNLINK', unpack(names))) == 'number' then
    try('ZREM', set, unpack(oldest))
    if #copies > 0 then try('ZREM', sidecars, unpack(copies)) end
  end
end
"
    };
}

pub(super) use trim;
