//! The part of the script of a publication that keeps the number of entries within its bound.

/// Defines the Lua function that removes the oldest members of a sorted set, and their keys, until
/// at most `max_entries` are left, or 100 are removed. A value takes its copy along.
///
/// The name of a copy follows from that of its value, as in `keyspace.rs`. For a name with unpaired
/// braces the script computes a CRC, which takes half a millisecond for 256 bytes. If such a name
/// is longer, its copy stays until a read finds the copy without its value, or until the bound on
/// copies removes it.
macro_rules! trim {
    () => {
        "
local prefix = string.sub(KEYS[1], 1, key_at - 1)
local function tag_of(name)
  local tag = string.match(name, '{([^}]*)}')
  return tag ~= '' and tag
end
local function slot_of(text)
  local crc = 0
  for at = 1, #text do
    crc = bit.bxor(crc, string.byte(text, at) * 256)
    for _ = 1, 8 do
      crc = crc * 2
      if crc > 65535 then crc = bit.bxor(crc, 69665) end
    end
  end
  return crc % 16384
end
local function text_in_slot(slot)
  local columns = {
    35028, 32906, 36871, 40699, 6562, 3219, 4484, 36589, 7931, 32802, 35268, 33450, 37959, 38523
  }
  local differing, bits, text = bit.bxor(slot, slot_of('@@@@')), 0, ''
  for at, column in ipairs(columns) do
    if bit.band(bit.rshift(differing, at - 1), 1) == 1 then bits = bit.bxor(bits, column) end
  end
  for at = 0, 12, 4 do text = text .. string.char(64 + bit.band(bit.rshift(bits, at), 15)) end
  return text
end
local function copy_of(name)
  local key = string.sub(name, key_at)
  if tag_of(prefix) then return ARGV[3] .. key end
  if not string.find(name, '[{}]') then return ARGV[3] .. '{' .. name .. '}' end
  local tag = tag_of(name) or #name <= 256 and text_in_slot(slot_of(name))
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
