-- What Forelook is doing, in one place: for the status line, :Forelook status and :checkhealth.

local api = vim.api
local M = {}

---@alias forelook.State "stopped"|"starting"|"loading"|"ready"|"paused"|"error"

---@type {state: forelook.State, message: string, percentage: integer?}
local current = { state = 'stopped', message = '' }
local num_running = 0
local progress = {} -- token → title
local told = false -- whether this server sends forelook/status, which knows more than the protocol's own progress
local on_ready = function() end
local complained = {} -- messages of errors that a person has been told of

local PATIENCE_MS = 2000 -- an error that heals by itself within this time is not worth a message

local function changed()
  -- Callers may be in a fast event, where neither autocommands nor redraws are allowed.
  vim.schedule(function()
    api.nvim_exec_autocmds('User', { pattern = 'ForelookStatus', modeline = false })
    vim.cmd('redrawstatus')
  end)
end

---@param state forelook.State
---@param message string?
---@param percentage integer?
function M.set(state, message, percentage)
  current = { state = state, message = message or '', percentage = percentage }
  changed()
end

---@param ready fun() called when the server says that from now on it has suggestions
function M.configure(ready)
  on_ready = ready
end

---Tell a person, in one line: a longer message would stop the typing with "Press ENTER".
---@param message string
---@param hint string? how to learn more; a message that is cut short refers to :Forelook
function M.warn(message, hint)
  local whole = 'Forelook: ' .. message:gsub('%s+', ' ') .. (hint and '; ' .. hint or '')
  local room = math.max(40, vim.o.columns - 14) -- the command line also holds what 'showcmd' and 'ruler' show
  if vim.fn.strdisplaywidth(whole) > room then
    local tail = '… ' .. (hint or ':Forelook says more')
    local kept = vim.fn.strcharpart(whole, 0, room - vim.fn.strdisplaywidth(tail))
    whole = kept .. tail
  end
  vim.notify(whole, vim.log.levels.WARN)
end

---What the server says of itself.
---@param state forelook.State
---@param message string
---@param percentage integer?
local function heard(state, message, percentage)
  local was = current.state
  if state == was and message == current.message and percentage == current.percentage then
    return
  end
  M.set(state, message, percentage)
  if state == 'ready' and was ~= 'ready' then
    complained = {}
    vim.schedule(on_ready)
  elseif state == 'error' and message ~= '' and not complained[message] then
    complained[message] = true
    local function tell()
      if current.state == 'error' and current.message == message then
        M.warn(message)
      end
    end
    vim.defer_fn(function()
      if api.nvim_get_mode().mode:sub(1, 1) == 'i' then
        -- "-- INSERT --" would be drawn over it at once.
        api.nvim_create_autocmd('InsertLeave', { once = true, callback = vim.schedule_wrap(tell) })
      else
        tell()
      end
    end, PATIENCE_MS)
  end
end

---@return {state: forelook.State, message: string, percentage: integer?}
function M.get()
  return current
end

---@param delta 1|-1
function M.count_request(delta)
  local was = num_running > 0
  num_running = math.max(0, num_running + delta)
  if was ~= (num_running > 0) then
    changed()
  end
end

---@return boolean
function M.busy()
  return num_running > 0
end

---`$/progress` of our server: the model loading, or the workspace being indexed.
---@param params table
function M.on_progress(params)
  local value = type(params) == 'table' and params.value
  if told or type(value) ~= 'table' then
    return
  end
  local token = tostring(params.token)
  if value.kind == 'begin' then
    progress[token] = value.title or ''
  end
  local title = progress[token] or ''
  if value.kind == 'end' then
    progress[token] = nil
    if current.state == 'loading' then
      heard('ready', value.message or '')
    end
  elseif current.state ~= 'error' then
    heard('loading', value.message or title, value.percentage)
  end
end

---`forelook/status`: { state, message, progress (0 to 1), model, device, … }.
---@param params table
function M.on_status(params)
  if type(params) ~= 'table' or type(params.state) ~= 'string' then
    return
  end
  told = true
  local message = type(params.message) == 'string' and params.message or ''
  local percentage = type(params.progress) == 'number' and math.floor(params.progress * 100) or nil
  local state = params.state == 'completing' and 'ready' or params.state
  if state == 'ready' and message == '' and type(params.model) == 'string' and params.model ~= '' then
    message = ('%s on %s'):format(params.model, params.device)
  end
  heard(state, message, percentage)
end

---`didChangeStatus` as Copilot's clients know it: {busy, message, kind}.
---@param params table
function M.on_change_status(params)
  if type(params) ~= 'table' then
    return
  end
  local message = type(params.message) == 'string' and params.message or ''
  if params.kind == 'Error' then
    heard('error', message)
  elseif params.busy then
    heard('loading', message, current.percentage)
  else
    heard('ready', message)
  end
end

---The status-line component; without a percent sign, which some status lines would take for an item of theirs.
---@param enabled boolean whether suggestions are on for the buffer
---@return string
function M.component(enabled)
  if not enabled then
    return 'Forelook: off'
  end
  if current.state == 'ready' then
    return num_running > 0 and 'Forelook …' or 'Forelook'
  end
  if current.state == 'loading' and current.percentage then
    return ('Forelook: loading %d/100'):format(current.percentage)
  end
  return 'Forelook: ' .. current.state
end

return M
