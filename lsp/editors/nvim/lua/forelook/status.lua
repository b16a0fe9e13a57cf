-- What Forelook is doing, in one place: for the status line, :Forelook status and :checkhealth.

local api = vim.api
local M = {}

---@alias forelook.State "stopped"|"starting"|"loading"|"ready"|"paused"|"error"

---@type {state: forelook.State, message: string, percentage: integer?}
local current = { state = 'stopped', message = '' }
local num_running = 0
local progress = {} -- token → title
local told = false -- whether this server sends forelook/status, which knows more than the protocol's own progress

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
      M.set('ready', value.message)
    end
  elseif current.state ~= 'error' then
    M.set('loading', value.message or title, value.percentage)
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
  if state ~= current.state or message ~= current.message or percentage ~= current.percentage then
    M.set(state, message, percentage)
  end
end

---`didChangeStatus` as Copilot's clients know it: {busy, message, kind}.
---@param params table
function M.on_change_status(params)
  if type(params) ~= 'table' then
    return
  end
  local message = type(params.message) == 'string' and params.message or ''
  if params.kind == 'Error' then
    M.set('error', message)
  elseif params.busy then
    M.set('loading', message, current.percentage)
  else
    M.set('ready', message)
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
