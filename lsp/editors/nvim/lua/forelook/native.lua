-- Neovim 0.12 and later: vim.lsp.inline_completion asks and draws. What it lacks is added here: accepting by word
-- and by line, dismissing, and a check that the text still fits, since its range is not moved by typing.

local items = require('forelook.item')
local suggestion = require('forelook.suggestion')
local text = require('forelook.text')

local api = vim.api
local M = {}

local METHOD = 'textDocument/inlineCompletion'
local KEPT_CONTEXTS = 8

local contexts = {} -- buffer → forelook.Context[], the newest first: where the cursor was at the latest requests

---@param group integer
function M.watch_requests(group)
  api.nvim_create_autocmd('LspRequest', {
    group = group,
    callback = function(args)
      local request = args.data and args.data.request
      if not request or request.method ~= METHOD or request.type ~= 'pending' or not contexts[args.buf] then
        return
      end
      if args.buf == api.nvim_get_current_buf() then
        table.insert(contexts[args.buf], 1, items.context(args.buf))
        contexts[args.buf][KEPT_CONTEXTS + 1] = nil
      end
    end,
  })
end

---Ask without a keystroke. Neovim asks on its own autocommands only, so one of them is made to run; should they be
---named differently one day, the next key asks.
---@param buf integer
function M.ask_again(buf)
  if contexts[buf] and api.nvim_get_mode().mode:sub(1, 1) == 'i' and buf == api.nvim_get_current_buf() then
    pcall(api.nvim_exec_autocmds, 'CursorMovedI', { group = 'nvim.lsp.inline_completion:' .. buf, buffer = buf })
  end
end

---@param buf integer
function M.attach(buf)
  if not contexts[buf] then
    contexts[buf] = {}
    vim.lsp.inline_completion.enable(true, { bufnr = buf })
    M.ask_again(buf)
  end
end

---@param buf integer
function M.detach(buf)
  if contexts[buf] then
    contexts[buf] = nil
    vim.lsp.inline_completion.enable(false, { bufnr = buf })
  end
end

---@param buf integer
---@return boolean
function M.is_attached(buf)
  return contexts[buf] ~= nil
end

---The native item as one of ours, if it still fits.
---@param buf integer
---@param native table vim.lsp.inline_completion.Item
---@return forelook.Item?
local function to_item(buf, native)
  if type(native.insert_text) ~= 'string' or not native.range then
    return nil
  end
  local row, from, end_row, to = native.range:to_extmark()
  local now = items.context(buf)
  if row ~= end_row then
    return nil
  end
  for _, context in ipairs(contexts[buf] or {}) do
    local item = items.build({
      raw = { insertText = native.insert_text, command = native.command },
      client_id = native.client_id,
      row = row,
      from = from,
      to = to,
      text = text.normalise_newlines(native.insert_text),
    }, context)
    if item and items.rest(item, now) then
      return item
    end
  end
  return nil
end

---@param buf integer
---@param part "all"|"word"|"line"
---@return boolean accepted whether there was a suggestion; it goes in right after this returns
function M.accept(buf, part)
  if not M.is_attached(buf) then
    return false
  end
  return vim.lsp.inline_completion.get({
    bufnr = buf,
    on_accept = function(native)
      local item = to_item(buf, native)
      if item then
        suggestion.put(buf, item, part)
      end
      return nil
    end,
  })
end

---@param buf integer
---@return boolean dismissed
function M.dismiss(buf)
  if not M.is_attached(buf) then
    return false
  end
  return vim.lsp.inline_completion.get({
    bufnr = buf,
    on_accept = function()
      return nil
    end,
  })
end

return M
