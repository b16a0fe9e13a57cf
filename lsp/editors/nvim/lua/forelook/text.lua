-- Pure text arithmetic: column encodings, word borders, how a suggestion lies over the text it replaces.
-- Columns and lengths are bytes unless a name says otherwise. Nothing here touches a buffer.

local M = {}

---Length in bytes of the UTF-8 character that starts at byte `i` (1-based). A byte that starts no valid
---character counts alone, as it does in Neovim's own column arithmetic.
---@param s string
---@param i integer
---@return integer
local function char_bytes(s, i)
  local lead = s:byte(i)
  local length = (lead >= 0xF0 and lead < 0xF8 and 4) or (lead >= 0xE0 and lead < 0xF0 and 3) or (lead >= 0xC2 and lead < 0xE0 and 2) or 1
  for k = 1, length - 1 do
    local following = s:byte(i + k)
    if not following or following < 0x80 or following > 0xBF then
      return 1
    end
  end
  return length
end
M.char_bytes = char_bytes

---Code units that one character takes in a position encoding.
---@param length integer bytes of the character
---@param encoding string "utf-8" | "utf-16" | "utf-32"
---@return integer
local function units(length, encoding)
  if encoding == 'utf-8' then
    return length
  end
  return (encoding == 'utf-16' and length == 4) and 2 or 1
end

---Byte column → column in a position encoding.
---@param line string
---@param byte_col integer
---@param encoding string
---@return integer
function M.to_units(line, byte_col, encoding)
  local i, column = 1, 0
  while i <= #line and i <= byte_col do
    local length = char_bytes(line, i)
    column = column + units(length, encoding)
    i = i + length
  end
  return column
end

---Column in a position encoding → byte column, never inside a character, never past the end.
---@param line string
---@param column integer
---@param encoding string
---@return integer
function M.to_bytes(line, column, encoding)
  local i, seen = 1, 0
  while i <= #line and seen < column do
    local length = char_bytes(line, i)
    seen = seen + units(length, encoding)
    i = i + length
  end
  return i - 1
end

---Text with `\n` as its only line end.
---@param text string
---@return string
function M.normalise_newlines(text)
  return (text:gsub('\r\n', '\n'):gsub('\r', '\n'))
end

---@param text string
---@return string[]
function M.lines(text)
  return vim.split(text, '\n', { plain = true })
end

---Bytes of the next word of `text`: leading white space (line breaks too), then a run of word characters or a run
---of punctuation. Bytes beyond ASCII are word characters, so no character is ever split.
---@param text string
---@return integer
function M.next_word(text)
  local start = #text:match('^%s*')
  local rest = text:sub(start + 1)
  local word = rest:match('^[%w_\128-\255]+') or rest:match('^[^%w_%s\128-\255]+') or ''
  return start + #word
end

---Bytes up to the end of the next line of `text` that has something on it, its line break excluded.
---@param text string
---@return integer
function M.next_line(text)
  return #text:match('^\n*[^\n]*')
end

---@param text string
---@return {from: integer, to: integer, text: string}[] characters with their first and last byte
local function characters(text)
  local found = {}
  local i = 1
  while i <= #text do
    local length = char_bytes(text, i)
    table.insert(found, { from = i, to = i + length - 1, text = text:sub(i, i + length - 1) })
    i = i + length
  end
  return found
end

---How `rest`, the part of a suggestion behind the cursor, lies over `tail`, the existing text it replaces.
---The characters of `tail` are looked for in `rest` from the right, so that a closing bracket stays the last one.
---@param rest string
---@param tail string
---@return {tail_to: integer, from: integer, to: integer}[]? anchors for each character of `tail`, its last byte
---there and its first and last byte in `rest`; nil when `tail` is no subsequence of `rest`
function M.align(rest, tail)
  local in_rest, in_tail = characters(rest), characters(tail)
  local anchors = {}
  local at = #in_rest
  for i = #in_tail, 1, -1 do
    while at > 0 and in_rest[at].text ~= in_tail[i].text do
      at = at - 1
    end
    if at == 0 then
      return nil
    end
    anchors[i] = { tail_to = in_tail[i].to, from = in_rest[at].from, to = in_rest[at].to }
    at = at - 1
  end
  return anchors
end

---The inserted pieces of `rest` between the characters of the text it replaces.
---@param rest string
---@param anchors table of `align`
---@return {offset: integer, text: string}[] pieces each goes in at `offset` bytes into the replaced text
function M.pieces(rest, anchors)
  local pieces = {}
  local taken, offset = 0, 0
  for i = 1, #anchors + 1 do
    local anchor = anchors[i]
    local stop = anchor and anchor.from - 1 or #rest
    if stop > taken then
      table.insert(pieces, { offset = offset, text = rest:sub(taken + 1, stop) })
    end
    if anchor then
      taken, offset = anchor.to, anchor.tail_to
    end
  end
  return pieces
end

---Bytes of the replaced text that the first `length` bytes of `rest` already contain.
---@param anchors table of `align`
---@param length integer
---@return integer
function M.consumed(anchors, length)
  local bytes = 0
  for _, anchor in ipairs(anchors) do
    if anchor.to <= length then
      bytes = anchor.tail_to
    end
  end
  return bytes
end

---Text as it looks from a screen column on: tabs become spaces, so that virtual text lines up with real text.
---@param text string
---@param column integer display column where the text starts
---@param tabstop integer
---@return string
function M.expand_tabs(text, column, tabstop)
  if not text:find('\t', 1, true) then
    return text
  end
  local parts = {}
  for chunk, tab in text:gmatch('([^\t]*)(\t?)') do
    table.insert(parts, chunk)
    column = column + vim.fn.strdisplaywidth(chunk, column)
    if tab ~= '' then
      local width = tabstop - column % tabstop
      table.insert(parts, (' '):rep(width))
      column = column + width
    end
  end
  return table.concat(parts)
end

return M
