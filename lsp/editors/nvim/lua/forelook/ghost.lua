-- Draws a suggestion as virtual text. From 0.10 text is pushed aside by inline virtual text; before that, and where
-- several lines go in amid a line, the line is redrawn over itself from the cursor on.

local compat = require('forelook.compat')
local text = require('forelook.text')

local api = vim.api
local M = {}

local NAMESPACE = api.nvim_create_namespace('forelook')
local GHOST, EXISTING = 'ForelookGhost', 'Normal'

function M.define_highlights()
  local target = vim.fn.hlexists('ComplHint') == 1 and 'ComplHint' or 'Comment'
  api.nvim_set_hl(0, GHOST, { link = target, default = true })
end

---@param buf integer
function M.clear(buf)
  if api.nvim_buf_is_valid(buf) then
    api.nvim_buf_clear_namespace(buf, NAMESPACE, 0, -1)
  end
end

---@param chunks {[1]: string, [2]: string}[]
---@param column integer display column where they start
---@param tabstop integer
---@return table chunks
---@return integer column where they end
local function lay_out(chunks, column, tabstop)
  local laid = {}
  for _, chunk in ipairs(chunks) do
    local shown = text.expand_tabs(chunk[1], column, tabstop)
    if shown ~= '' then
      table.insert(laid, { shown, chunk[2] })
      column = column + vim.fn.strdisplaywidth(shown, column)
    end
  end
  return laid, column
end

---What the line shows from the cursor on: suggestion and existing text interleaved.
---@param rest string
---@param tail string
---@param anchors table?
---@return table chunks
local function interleave(rest, tail, anchors)
  if not anchors then
    return { { rest, GHOST } }
  end
  local chunks = {}
  local offset = 0
  for _, piece in ipairs(text.pieces(rest, anchors)) do
    table.insert(chunks, { tail:sub(offset + 1, piece.offset), EXISTING })
    table.insert(chunks, { piece.text, GHOST })
    offset = piece.offset
  end
  table.insert(chunks, { tail:sub(offset + 1), EXISTING })
  return chunks
end

---@param buf integer
---@param item forelook.Item
---@param context forelook.Context
---@param rest string
function M.show(buf, item, context, rest)
  M.clear(buf)
  local tabstop = vim.bo[buf].tabstop
  local column = vim.fn.strdisplaywidth(context.line:sub(1, context.col))
  local following = item.tail .. item.suffix
  local anchors = text.align(rest, item.tail)
  local lines = text.lines(rest)

  if #lines == 1 and compat.has_inline_virtual_text and anchors then
    for _, piece in ipairs(text.pieces(rest, anchors)) do
      local col = context.col + piece.offset
      local start = vim.fn.strdisplaywidth(context.line:sub(1, col))
      api.nvim_buf_set_extmark(buf, NAMESPACE, context.row, col, {
        virt_text = { { text.expand_tabs(piece.text, start, tabstop), GHOST } },
        virt_text_pos = 'inline',
        hl_mode = 'combine',
      })
    end
    return
  end

  local first
  if #lines == 1 then
    first = interleave(rest, item.tail, anchors)
    table.insert(first, { item.suffix, EXISTING })
  else
    first = { { lines[1], GHOST } }
  end
  local laid, stop = lay_out(first, column, tabstop)
  -- The suggestion may be narrower than the text it hides.
  local hidden = column + vim.fn.strdisplaywidth(following, column)
  if stop < hidden then
    table.insert(laid, { (' '):rep(hidden - stop), EXISTING })
  end

  local virt_lines
  if #lines > 1 then
    virt_lines = {}
    for i = 2, #lines do
      local chunks = { { lines[i], GHOST } }
      if i == #lines then
        table.insert(chunks, { item.suffix, EXISTING })
      end
      local virtual = lay_out(chunks, 0, tabstop)
      table.insert(virt_lines, #virtual > 0 and virtual or { { '', GHOST } })
    end
  end
  local inline = following == '' and compat.has_inline_virtual_text
  api.nvim_buf_set_extmark(buf, NAMESPACE, context.row, context.col, {
    virt_text = #laid > 0 and laid or nil,
    virt_text_pos = #laid > 0 and (inline and 'inline' or 'overlay') or nil,
    virt_lines = virt_lines,
    hl_mode = 'combine',
  })
end

return M
