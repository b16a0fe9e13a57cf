-- One suggestion and its place in a buffer: does it still fit, what of it is left, put it in.

local compat = require('forelook.compat')
local text = require('forelook.text')

local api = vim.api
local M = {}

---@class forelook.Context where the cursor was when the server was asked
---@field row integer 0-based
---@field col integer byte column of the cursor
---@field line string

---@class forelook.Item
---@field raw table the LSP item, as received
---@field client_id integer
---@field row integer 0-based line of the range
---@field col integer byte column where the range starts
---@field text string what the range becomes
---@field tail string existing text between cursor and range end, replaced on accepting
---@field suffix string existing text behind the range on its line
---@field accepted_units integer UTF-16 length of what lies before `text` in the received insertText

---@param buf integer
---@return forelook.Context
function M.context(buf)
  local cursor = api.nvim_win_get_cursor(0)
  local row = cursor[1] - 1
  return { row = row, col = cursor[2], line = api.nvim_buf_get_lines(buf, row, row + 1, false)[1] or '' }
end

---@param received table the item's insertText, text, and its range in bytes
---@param context forelook.Context
---@return forelook.Item? item nil where the item breaks the protocol's rules
local function build(received, context)
  local from, to = received.from, received.to
  if received.row ~= context.row or from > context.col or to < context.col or to > #context.line then
    return nil
  end
  if not vim.startswith(received.text, context.line:sub(from + 1, context.col)) then
    return nil
  end
  return {
    raw = received.raw,
    client_id = received.client_id,
    row = received.row,
    col = from,
    text = received.text,
    tail = context.line:sub(context.col + 1, to),
    suffix = context.line:sub(to + 1),
    accepted_units = 0,
  }
end
M.build = build

---@param raw table LSP InlineCompletionItem
---@param client table
---@param context forelook.Context
---@return forelook.Item?
function M.from_lsp(raw, client, context)
  local insert = raw.insertText
  if type(insert) ~= 'string' or insert == '' then
    return nil
  end
  local row, from, to = context.row, context.col, context.col
  if raw.range then
    if raw.range.start.line ~= raw.range['end'].line then
      return nil
    end
    row = raw.range.start.line
    from = text.to_bytes(context.line, raw.range.start.character, client.offset_encoding)
    to = text.to_bytes(context.line, raw.range['end'].character, client.offset_encoding)
  end
  return build({
    raw = raw,
    client_id = client.id,
    row = row,
    from = from,
    to = to,
    text = text.normalise_newlines(insert),
  }, context)
end

---What is still to be inserted, or nil when the text around the cursor no longer agrees with the suggestion.
---@param item forelook.Item
---@param context forelook.Context
---@return string?
function M.rest(item, context)
  if context.row ~= item.row or context.col < item.col then
    return nil
  end
  local before = context.line:sub(item.col + 1, context.col)
  if not vim.startswith(item.text, before) or context.line:sub(context.col + 1) ~= item.tail .. item.suffix then
    return nil
  end
  local rest = item.text:sub(#before + 1)
  if rest == '' or rest == item.tail then
    return nil
  end
  return rest
end

---@param units string
---@return integer
local function utf16_length(units)
  return text.to_units(units, #units, 'utf-16')
end

---Insert the whole of what is left, its next word, or up to the end of its next line.
---@param buf integer
---@param item forelook.Item
---@param part "all"|"word"|"line"
---@return forelook.Item? remainder nil when everything is in
---@return integer accepted_units UTF-16 length accepted, counted from the start of the received insertText
function M.insert(buf, item, part)
  local context = M.context(buf)
  local rest = assert(M.rest(item, context))
  local length = (part == 'word' and text.next_word(rest)) or (part == 'line' and text.next_line(rest)) or #rest
  local whole = length >= #rest
  local anchors = not whole and text.align(rest, item.tail)
  local consumed = whole and #item.tail or (anchors and text.consumed(anchors, length) or 0)
  local piece = rest:sub(1, length)
  local lines = text.lines(piece)

  compat.break_undo()
  api.nvim_buf_set_text(buf, context.row, context.col, context.row, context.col + consumed, lines)
  local row = context.row + #lines - 1
  local col = (#lines == 1 and context.col or 0) + #lines[#lines]
  api.nvim_win_set_cursor(0, { row + 1, col })

  local accepted = item.text:sub(1, #item.text - #rest + length)
  local units = item.accepted_units + utf16_length(accepted)
  if whole then
    return nil, units
  end
  local remainder = vim.tbl_extend('force', item, { tail = item.tail:sub(consumed + 1) })
  if #lines > 1 then
    -- The range moves to the new line, which starts with the last line of what was just inserted.
    local line_start = #accepted - #lines[#lines]
    remainder.row, remainder.col = row, 0
    remainder.text = item.text:sub(line_start + 1)
    remainder.accepted_units = item.accepted_units + utf16_length(item.text:sub(1, line_start))
  end
  return remainder, units
end

return M
