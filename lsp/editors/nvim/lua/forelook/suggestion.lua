-- The plugin's own engine: when to ask, which answer still fits, what is shown.
-- A suggestion that the user types through stays on screen without another request.

local client = require('forelook.client')
local compat = require('forelook.compat')
local ghost = require('forelook.ghost')
local items = require('forelook.item')
local status = require('forelook.status')
local text = require('forelook.text')

local api = vim.api
local M = {}

local INVOKED, AUTOMATIC = 1, 2

local debounce_ms = 50
local states = {} -- buffer → state
local failure -- why the latest request failed

---@class forelook.BufferState
---@field automatic boolean ask while typing
---@field hands_over boolean Neovim's own inline completion takes over as soon as the text or the cursor moves
---@field items forelook.Item[]
---@field index integer
---@field shown table<table, boolean> LSP items the server was told are on screen
---@field invoked boolean whether the items answer an explicit request
---@field cancel fun()? cancels the running request
---@field request integer number of the latest request; an answer to another one is stale
---@field asked_at string? text and cursor of the latest request, so that no second event asks the same again
---@field timer any
---@field quiet_tick integer? changedtick at which the user dismissed: nothing new until the text changes

---@param ms integer
function M.configure(ms)
  debounce_ms = ms
end

---@param state forelook.BufferState
local function stop_timer(state)
  if state.timer then
    state.timer:stop()
    if not state.timer:is_closing() then
      state.timer:close()
    end
    state.timer = nil
  end
end

---@param state forelook.BufferState
local function cancel_request(state)
  if state.cancel then
    state.cancel()
    state.cancel = nil
  end
  state.request = state.request + 1
end

---@param buf integer
local function hide(buf)
  local state = states[buf]
  if #state.items > 0 then
    state.items, state.index, state.invoked = {}, 1, false
    ghost.clear(buf)
  end
end

---@param buf integer
---@return forelook.Item?, string? rest
local function current(buf)
  local state = states[buf]
  local item = state and state.items[state.index]
  if not item or buf ~= api.nvim_get_current_buf() then
    return nil
  end
  local rest = items.rest(item, items.context(buf))
  if not rest then
    return nil
  end
  return item, rest
end

---Draw the selected suggestion, or drop everything when it no longer fits.
---@param buf integer
---@return boolean shown
local function render(buf)
  local state = states[buf]
  local item, rest = current(buf)
  if not item or vim.fn.pumvisible() == 1 then
    hide(buf)
    return false
  end
  ghost.show(buf, item, items.context(buf), rest)
  if not state.shown[item.raw] then
    state.shown[item.raw] = true
    client.notify(item.client_id, 'textDocument/didShowCompletion', { item = item.raw })
  end
  return true
end

---@param buf integer
---@return string
local function place(buf)
  local cursor = api.nvim_win_get_cursor(0)
  return ('%d:%d:%d'):format(api.nvim_buf_get_changedtick(buf), cursor[1], cursor[2])
end

local function inserting()
  return api.nvim_get_mode().mode:sub(1, 1) == 'i'
end

---@param result any LSP result
---@return table[]
local function result_items(result)
  if type(result) ~= 'table' then
    return {}
  end
  local list = result.items or result
  return type(list) == 'table' and list or {}
end

---@param buf integer
---@param kind 1|2
---@param on_items fun(found: forelook.Item[]) what to do with an answer that is not stale
local function request(buf, kind, on_items)
  local state = states[buf]
  local server = client.get(buf)
  if not state or not server or buf ~= api.nvim_get_current_buf() then
    return
  end
  local context = items.context(buf)
  local position = { line = context.row, character = text.to_units(context.line, context.col, server.offset_encoding) }
  local cancel_previous = state.cancel
  state.asked_at = place(buf)
  state.request = state.request + 1
  local number = state.request
  state.cancel = client.complete(buf, server, position, kind, function(err, result)
    if states[buf] ~= state or state.request ~= number then
      return
    end
    state.cancel = nil
    if err then
      state.asked_at = nil
      if client.is_real_error(err) then
        failure = err.message
        status.set('error', failure)
      end
      return
    end
    -- An answer heals what a request broke, not what the server says of itself.
    if failure and status.get().message == failure then
      status.set('ready')
    end
    failure = nil
    if not inserting() or buf ~= api.nvim_get_current_buf() then
      return
    end
    local now = items.context(buf)
    local found, seen = {}, {}
    for _, raw in ipairs(result_items(result)) do
      local item = items.from_lsp(raw, server, context)
      if item and items.rest(item, now) and not seen[item.text] then
        seen[item.text] = true
        table.insert(found, item)
      end
    end
    on_items(found)
  end)
  -- The old request is cancelled after the new one is sent, so that the server can hand its work over.
  if cancel_previous then
    cancel_previous()
  end
end

---Show an answer, from the given alternative on.
---@param buf integer
---@param invoked boolean
---@param skip integer alternatives to skip
---@return fun(found: forelook.Item[])
local function show_all(buf, invoked, skip)
  return function(found)
    local state = states[buf]
    if #found > 0 then
      stop_timer(state)
      state.items, state.index, state.invoked = found, skip % #found + 1, invoked
      render(buf)
    end
  end
end

---@param buf integer
local function schedule_request(buf)
  local state = states[buf]
  stop_timer(state)
  local timer = compat.uv.new_timer()
  state.timer = timer
  timer:start(debounce_ms, 0, vim.schedule_wrap(function()
    if states[buf] ~= state or state.timer ~= timer then
      return -- a later keystroke came between the timer and this
    end
    stop_timer(state)
    if inserting() and vim.fn.pumvisible() == 0 then
      request(buf, AUTOMATIC, show_all(buf, false, 0))
    end
  end))
end

---@param buf integer
local function leave(buf)
  local state = states[buf]
  stop_timer(state)
  cancel_request(state)
  state.asked_at = nil
  hide(buf)
end

---The text or the cursor changed in insert mode.
---@param buf integer
local function on_change(buf)
  local state = states[buf]
  if state.hands_over then
    leave(buf)
    return
  end
  if render(buf) then
    stop_timer(state)
    return
  end
  if not state.automatic or vim.fn.pumvisible() == 1 then
    return
  end
  if state.quiet_tick == api.nvim_buf_get_changedtick(buf) then
    return
  end
  state.quiet_tick = nil
  if state.asked_at ~= place(buf) then
    schedule_request(buf)
  end
end

---@param buf integer
---@param mode {automatic: boolean, hands_over: boolean}
function M.attach(buf, mode)
  if states[buf] then
    states[buf].automatic, states[buf].hands_over = mode.automatic, mode.hands_over
    return
  end
  states[buf] = {
    automatic = mode.automatic,
    hands_over = mode.hands_over,
    items = {},
    index = 1,
    shown = setmetatable({}, { __mode = 'k' }),
    invoked = false,
    request = 0,
  }
  local group = api.nvim_create_augroup('forelook_buffer_' .. buf, { clear = true })
  compat.autocmd(group, { 'InsertEnter', 'TextChangedI', 'CursorMovedI', 'TextChangedP', 'CompleteDone' }, function()
    on_change(buf)
  end, buf)
  compat.autocmd(group, { 'InsertLeave', 'BufLeave' }, function()
    leave(buf)
  end, buf)
  if inserting() and buf == api.nvim_get_current_buf() then
    on_change(buf)
  end
end

---Ask where an earlier answer was empty only because the server was not ready.
---@param buf integer
function M.ask_again(buf)
  local state = states[buf]
  if state and inserting() and #state.items == 0 and not state.cancel then
    state.asked_at = nil
    on_change(buf)
  end
end

---@param buf integer
function M.detach(buf)
  local state = states[buf]
  if not state then
    return
  end
  leave(buf)
  states[buf] = nil
  pcall(api.nvim_del_augroup_by_name, 'forelook_buffer_' .. buf) -- gone already with a wiped buffer's group
end

---@param buf integer
---@return boolean
function M.is_visible(buf)
  return current(buf) ~= nil
end

---Ask for several alternatives and show one of them.
---@param buf integer
---@param skip integer? alternatives to skip; negative counts from the last
function M.trigger(buf, skip)
  if states[buf] then
    states[buf].quiet_tick = nil
    stop_timer(states[buf])
    request(buf, INVOKED, show_all(buf, true, skip or 0))
  end
end

---@param buf integer
---@param part "all"|"word"|"line"
---@return boolean accepted
function M.accept(buf, part)
  local item = current(buf)
  if not item then
    return false
  end
  local state = states[buf]
  stop_timer(state)
  cancel_request(state)
  local remainder = M.put(buf, item, part)
  if remainder then
    state.items, state.index = { remainder }, 1
    render(buf)
  else
    hide(buf)
  end
  return true
end

---Put a suggestion or a part of it into the buffer and tell the server.
---@param buf integer
---@param item forelook.Item
---@param part "all"|"word"|"line"
---@return forelook.Item? remainder
function M.put(buf, item, part)
  local remainder, units = items.insert(buf, item, part)
  if remainder then
    client.notify(item.client_id, 'textDocument/didPartiallyAcceptCompletion', { item = item.raw, acceptedLength = units })
  else
    local server = vim.lsp.get_client_by_id(item.client_id)
    if server and type(item.raw.command) == 'table' then
      client.execute(server, item.raw.command.command, item.raw.command.arguments)
    end
  end
  return remainder
end

---Show the next or the previous alternative; where only one is known, ask for more first.
---@param buf integer
---@param delta 1|-1
---@return boolean
function M.cycle(buf, delta)
  local item = current(buf)
  if not item then
    return false
  end
  local state = states[buf]
  local function step()
    state.index = (state.index - 1 + delta) % #state.items + 1
    render(buf)
  end
  if #state.items > 1 or state.invoked then
    step()
    return true
  end
  request(buf, INVOKED, function(found)
    local shown = current(buf)
    if not shown then
      return
    end
    state.invoked = true
    for _, other in ipairs(found) do
      if other.text ~= shown.text then
        table.insert(state.items, other)
      end
    end
    step()
  end)
  return true
end

---@param buf integer
---@return boolean
function M.dismiss(buf)
  local state = states[buf]
  if not state then
    return false
  end
  local visible = current(buf) ~= nil
  local pending = state.timer ~= nil or state.cancel ~= nil
  leave(buf)
  state.quiet_tick = api.nvim_buf_get_changedtick(buf)
  return visible or pending
end

return M
