-- Forelook for Neovim: the functions a configuration calls. See :help forelook.

local client = require('forelook.client')
local compat = require('forelook.compat')
local config = require('forelook.config')
local ghost = require('forelook.ghost')
local native = require('forelook.native')
local status = require('forelook.status')
local suggestion = require('forelook.suggestion')

local api = vim.api
local M = {}

local options -- nil until start()
local given -- what setup() was called with
local enabled = true
local switched = {} -- filetype → boolean, set at run time

---@param buf integer?
---@return integer
local function resolve(buf)
  return (buf == nil or buf == 0) and api.nvim_get_current_buf() or buf
end

---Why a buffer gets no suggestions, or nil when it does.
---@param buf integer?
---@return string? reason
function M.why_not(buf)
  buf = resolve(buf)
  if not options then
    return 'Forelook has not started yet'
  end
  if not enabled then
    return 'Forelook is switched off (:Forelook enable)'
  end
  if vim.b[buf].forelook == false then
    return 'Forelook is switched off for this buffer (:Forelook enable buffer)'
  end
  if vim.bo[buf].buftype ~= '' then
    return ('this is no ordinary file (buftype "%s")'):format(vim.bo[buf].buftype)
  end
  if api.nvim_buf_get_name(buf) == '' and buf ~= api.nvim_get_current_buf() then
    return 'the buffer has no name and is not the current one'
  end
  local filetype = vim.bo[buf].filetype
  local on = switched[filetype]
  if on == nil then
    on = options.filetypes[filetype]
  end
  if on == nil then
    on = options.filetypes['*']
  end
  if on == false and vim.b[buf].forelook ~= true then
    return ('filetype "%s" is switched off (:Forelook enable filetype)'):format(filetype)
  end
  local bytes = api.nvim_buf_get_offset(buf, api.nvim_buf_line_count(buf))
  if bytes > options.max_file_bytes then
    return ('the file has %d bytes, more than max_file_bytes = %d'):format(bytes, options.max_file_bytes)
  end
  return nil
end

---@return boolean
function M.uses_native()
  return options ~= nil and options.renderer ~= 'own' and options.auto_trigger and compat.has_native_inline_completion
end

---@param buf integer
local function on_ready(_, buf)
  if M.why_not(buf) then
    return
  end
  local is_native = M.uses_native()
  suggestion.attach(buf, { automatic = options.auto_trigger and not is_native, hands_over = is_native })
  if is_native then
    native.attach(buf)
  end
end

---Bring a buffer in line with what is enabled.
---@param buf integer?
---@param typing boolean? whether somebody is about to type in it
function M.refresh(buf, typing)
  buf = resolve(buf)
  if not api.nvim_buf_is_loaded(buf) then
    return
  end
  if client.was_renamed(buf) then
    native.detach(buf)
    suggestion.detach(buf)
    client.detach(buf)
  end
  if M.why_not(buf) then
    native.detach(buf)
    suggestion.detach(buf)
    client.detach(buf)
  elseif client.is_attached(buf) then
    local server = client.get(buf)
    if server then
      on_ready(server, buf)
    end
  elseif typing or api.nvim_buf_get_name(buf) ~= '' then
    client.attach(buf)
  end
end

---The server has suggestions from now on: whoever waits for one gets it without another keystroke.
local function ask_again()
  local buf = api.nvim_get_current_buf()
  if not M.why_not(buf) and client.get(buf) then
    native.ask_again(buf)
    suggestion.ask_again(buf)
  end
end

local function refresh_all()
  for _, buf in ipairs(api.nvim_list_bufs()) do
    if api.nvim_buf_is_loaded(buf) then
      M.refresh(buf)
    end
  end
end

---@param scope "all"|"buffer"|"filetype"|nil
---@param on boolean
local function switch(scope, on)
  if scope == 'buffer' then
    vim.b.forelook = on and vim.NIL or false
    if on and (M.why_not() or ''):find('^filetype') then
      vim.b.forelook = true
    end
  elseif scope == 'filetype' then
    switched[vim.bo.filetype] = on
  elseif scope == nil or scope == 'all' then
    enabled = on
  else
    error(('forelook: unknown scope "%s"; use all, buffer or filetype'):format(scope), 0)
  end
  refresh_all()
  if not enabled then
    client.stop()
  end
end

---@param scope "all"|"buffer"|"filetype"|nil
function M.enable(scope)
  switch(scope, true)
end

---@param scope "all"|"buffer"|"filetype"|nil
function M.disable(scope)
  switch(scope, false)
end

---@param scope "all"|"buffer"|"filetype"|nil
function M.toggle(scope)
  local on
  if scope == 'buffer' then
    on = M.is_enabled()
  elseif scope == 'filetype' then
    on = not (M.why_not() or ''):find('^filetype')
  else
    on = enabled
  end
  switch(scope, not on)
end

---@return boolean
function M.is_enabled()
  return M.why_not() == nil
end

---A suggestion drawn by this plugin is on screen.
---@return boolean
function M.is_visible()
  return suggestion.is_visible(resolve())
end

---@param part "all"|"word"|"line"
---@return boolean
local function accept(part)
  local buf = resolve()
  return suggestion.accept(buf, part) or native.accept(buf, part)
end

---@return boolean accepted
function M.accept()
  return accept('all')
end

---@return boolean accepted
function M.accept_word()
  return accept('word')
end

---@return boolean accepted
function M.accept_line()
  return accept('line')
end

---@param delta 1|-1
---@return boolean
local function cycle(delta)
  local buf = resolve()
  if suggestion.is_visible(buf) then
    return suggestion.cycle(buf, delta)
  end
  if native.dismiss(buf) then
    -- Neovim only asks automatically, which brings one suggestion; ask for alternatives and draw them here.
    vim.schedule(function()
      suggestion.trigger(buf, delta)
    end)
    return true
  end
  return false
end

---@return boolean
function M.next()
  return cycle(1)
end

---@return boolean
function M.prev()
  return cycle(-1)
end

---@return boolean dismissed
function M.dismiss()
  local buf = resolve()
  local own = suggestion.dismiss(buf)
  return native.dismiss(buf) or own
end

---Ask now, for several alternatives.
---@return boolean
function M.trigger()
  local buf = resolve()
  native.dismiss(buf)
  vim.schedule(function()
    suggestion.trigger(buf)
  end)
  return true
end

---For a status line: %{v:lua.require'forelook'.statusline()}
---@return string
function M.statusline()
  local reason = M.why_not()
  if reason and enabled and not reason:find('^filetype') and vim.b.forelook ~= false then
    return ''
  end
  return status.component(reason == nil)
end

---@return table { state, message, percentage, busy }
function M.status()
  return vim.tbl_extend('force', status.get(), { busy = status.busy() })
end

---@return table? options nil before the start
function M.options()
  return options
end

-- An action that finds no suggestion leaves its key to what the key did before.
local ACTIONS = {
  accept = M.accept,
  accept_word = M.accept_word,
  accept_line = M.accept_line,
  next = M.next,
  prev = M.prev,
  dismiss = M.dismiss,
  trigger = M.trigger,
}

---The mappings for :help forelook-keys; an accepted suggestion is an undo step of its own.
local function define_plugs()
  for action in pairs(ACTIONS) do
    local run = ('<Cmd>lua require("forelook").%s()<CR>'):format(action)
    local rhs = vim.startswith(action, 'accept') and '<C-g>u' .. run .. '<C-g>u' or run
    vim.keymap.set('i', ('<Plug>(forelook-%s)'):format(action:gsub('_', '-')), rhs, { silent = true })
  end
end

---The global Insert-mode mapping of a key. (maparg() hands out Lua callbacks as numbers before 0.8.)
---@param key string
---@return table?
local function find_mapping(key)
  local wanted = api.nvim_replace_termcodes(key, true, true, true)
  for _, mapping in ipairs(api.nvim_get_keymap('i')) do
    if api.nvim_replace_termcodes(mapping.lhs, true, true, true) == wanted then
      return mapping
    end
  end
  return nil
end

---@param action string
---@param key string
local function map(action, key)
  local ours = ('<Plug>(forelook-%s)'):format(action:gsub('_', '-'))
  local fallback = ('<Plug>(forelook-%s-fallback)'):format(action:gsub('_', '-'))
  local previous = find_mapping(key)
  if not previous then
    vim.keymap.set('i', fallback, key, { remap = false })
  else
    vim.keymap.set('i', fallback, previous.callback or previous.rhs or '', {
      expr = previous.expr == 1,
      remap = previous.noremap == 0,
      silent = previous.silent == 1,
      -- Only a Lua callback knows of it; older Neovims decide by themselves.
      replace_keycodes = previous.expr == 1 and previous.replace_keycodes == 1 or nil,
    })
  end
  vim.keymap.set('i', key, function()
    local buf = resolve()
    if suggestion.is_visible(buf) or action == 'trigger' then
      return ours
    end
    -- vim.lsp.inline_completion acts after this returns, so it may be called from an expression mapping.
    if native.is_attached(buf) and ACTIONS[action]() then
      return ''
    end
    return fallback
  end, { expr = true, remap = true, silent = true, desc = 'Forelook: ' .. action:gsub('_', ' ') })
end

---Start: called once by plugin/forelook.lua when Neovim has read its configuration.
function M.start()
  if options then
    return
  end
  options = config.merge(given or vim.g.forelook)
  client.configure(options, on_ready)
  status.configure(ask_again)
  suggestion.configure(options.debounce_ms)
  ghost.define_highlights()
  local group = api.nvim_create_augroup('forelook', { clear = true })
  compat.autocmd(group, { 'FileType', 'BufEnter', 'BufFilePost', 'BufWritePost' }, function(args)
    M.refresh(args.buf)
  end)
  -- All buffers without a name share one uri, so only the one that is typed in has a document.
  compat.autocmd(group, { 'InsertEnter', 'BufLeave' }, function(args)
    if api.nvim_buf_get_name(args.buf) ~= '' then
      return
    elseif args.event == 'InsertEnter' then
      M.refresh(args.buf, true)
    else
      vim.schedule(function()
        if api.nvim_buf_is_valid(args.buf) then
          M.refresh(args.buf)
        end
      end)
    end
  end)
  compat.autocmd(group, { 'BufUnload' }, function(args)
    native.detach(args.buf)
    suggestion.detach(args.buf)
    client.detach(args.buf)
  end)
  compat.autocmd(group, 'ColorScheme', ghost.define_highlights)
  if compat.has_native_inline_completion then
    native.watch_requests(group)
  end
  define_plugs()
  for action, key in pairs(options.keymaps) do
    if key then
      map(action, key)
    end
  end
  refresh_all()
end

---Set options. Needed only to change a default; see :help forelook-options. A configuration may be read again.
---@param opts table?
function M.setup(opts)
  opts = opts or vim.g.forelook or {}
  local merged = config.merge(opts) -- a wrong option is named where it was written
  if options then
    if not vim.deep_equal(merged, options) then
      vim.notify('Forelook: restart Neovim for the new options', vim.log.levels.INFO)
    end
    return
  end
  given = opts
  if vim.v.vim_did_enter == 1 then
    M.start()
  end
end

return M
