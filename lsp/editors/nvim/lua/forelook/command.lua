-- :Forelook and its completion.

local api = vim.api
local M = {}

---@return table? client of the current buffer, with a message when there is none
local function need_client()
  local found = require('forelook.client').get(api.nvim_get_current_buf())
  if not found then
    local reason = require('forelook').why_not() or ('the language server is ' .. require('forelook.status').get().state)
    vim.notify('Forelook: ' .. reason, vim.log.levels.WARN)
  end
  return found
end

---@param value any
---@param indent string
---@param lines string[]
local function describe(value, indent, lines)
  local names = vim.tbl_keys(value)
  table.sort(names, function(a, b)
    return tostring(a) < tostring(b)
  end)
  for _, name in ipairs(names) do
    local field = value[name]
    if type(field) == 'table' then
      table.insert(lines, ('%s%s:'):format(indent, name))
      describe(field, indent .. '  ', lines)
    elseif field ~= vim.NIL then
      local shown = type(field) == 'number' and field % 1 ~= 0 and ('%.2f'):format(field) or tostring(field)
      table.insert(lines, ('%s%s: %s'):format(indent, name, shown))
    end
  end
end

---Show lines in a floating window that any of q and <Esc> closes.
---@param title string
---@param lines string[]
local function show(title, lines)
  table.insert(lines, 1, 'Forelook: ' .. title)
  local width = 0
  for _, line in ipairs(lines) do
    width = math.max(width, vim.fn.strdisplaywidth(line))
  end
  local buf = api.nvim_create_buf(false, true)
  api.nvim_buf_set_lines(buf, 0, -1, true, lines)
  vim.bo[buf].modifiable = false
  vim.bo[buf].bufhidden = 'wipe'
  vim.cmd('stopinsert')
  local height = math.max(1, math.min(#lines, vim.o.lines - 4))
  width = math.max(1, math.min(width, vim.o.columns - 4))
  api.nvim_open_win(buf, true, {
    relative = 'editor',
    row = math.floor((vim.o.lines - height) / 2),
    col = math.floor((vim.o.columns - width) / 2),
    width = width,
    height = height,
    style = 'minimal',
    border = 'single',
  })
  for _, key in ipairs({ 'q', '<Esc>' }) do
    vim.keymap.set('n', key, '<Cmd>close<CR>', { buffer = buf, nowait = true })
  end
end

---Run one of the server's commands and show what it answers.
---@param name string
---@param title string
local function run(name, title)
  local found = need_client()
  if not found then
    return
  end
  local client = require('forelook.client')
  local id = client.find_command(found, name)
  if not id then
    vim.notify(('Forelook: this language server has no command "%s"; update it'):format(name), vim.log.levels.WARN)
    return
  end
  client.execute(found, id, nil, function(err, result)
    if err then
      vim.notify(('Forelook: %s failed: %s'):format(title, err.message), vim.log.levels.ERROR)
      return
    end
    local lines = {}
    if type(result) == 'table' then
      describe(result, '  ', lines)
    elseif type(result) == 'string' then
      lines = vim.split(result, '\n', { plain = true })
    end
    if #lines > 0 then
      show(title, lines)
    else
      api.nvim_echo({ { 'Forelook: ' .. title } }, true, {})
    end
  end)
end

local function show_status()
  local forelook = require('forelook')
  local current = forelook.status()
  local lines = { ('Forelook: %s%s'):format(current.state, current.message ~= '' and ' – ' .. current.message or '') }
  table.insert(lines, '  this buffer: ' .. (forelook.why_not() or 'on'))
  table.insert(lines, '  drawn by: ' .. (forelook.uses_native() and 'vim.lsp.inline_completion' or 'the plugin'))
  for _, server in ipairs(require('forelook.client').servers()) do
    local where = server.root ~= '' and server.root or 'files without a workspace'
    table.insert(lines, ('  server for %s: %s'):format(where, server.client_id and ('client ' .. server.client_id) or 'not running'))
  end
  api.nvim_echo({ { table.concat(lines, '\n') } }, true, {})
end

local SCOPES = { 'all', 'buffer', 'filetype' }

local COMMANDS = {
  enable = {
    scopes = true,
    run = function(scope)
      require('forelook').enable(scope)
    end,
  },
  disable = {
    scopes = true,
    run = function(scope)
      require('forelook').disable(scope)
    end,
  },
  toggle = {
    scopes = true,
    run = function(scope)
      require('forelook').toggle(scope)
    end,
  },
  status = { run = show_status },
  stats = {
    run = function()
      run('forelook.stats', 'statistics')
    end,
  },
  pool = {
    run = function()
      run('forelook.poolStats', 'the pool of this workspace')
    end,
  },
  ['clear-pool'] = {
    run = function()
      run('forelook.clearPool', 'the pool of this workspace is empty now')
    end,
  },
  restart = {
    run = function()
      require('forelook.client').restart()
    end,
  },
  ['restart-backend'] = {
    run = function()
      run('forelook.restartBackend', 'the backend is starting again')
    end,
  },
  log = {
    run = function()
      vim.cmd('tabedit ' .. vim.fn.fnameescape(require('forelook.compat').lsp_log_path()))
    end,
  },
  health = {
    run = function()
      vim.cmd('checkhealth forelook')
    end,
  },
  trigger = {
    run = function()
      require('forelook').trigger()
    end,
  },
  dismiss = {
    run = function()
      require('forelook').dismiss()
    end,
  },
}

---@return string[]
local function names()
  local list = vim.tbl_keys(COMMANDS)
  table.sort(list)
  return list
end

---@param args string[]
function M.execute(args)
  local name = args[1] or 'status'
  local command = COMMANDS[name]
  if not command then
    vim.notify(('Forelook: no command "%s"; there are %s'):format(name, table.concat(names(), ', ')), vim.log.levels.ERROR)
    return
  end
  if args[2] and not (command.scopes and vim.tbl_contains(SCOPES, args[2])) then
    local allowed = command.scopes and table.concat(SCOPES, ', ') or 'no argument'
    vim.notify(('Forelook: "%s" takes %s, not "%s"'):format(name, allowed, args[2]), vim.log.levels.ERROR)
    return
  end
  require('forelook').start()
  command.run(args[2])
end

---@param lead string
---@param line string
---@return string[]
function M.complete(lead, line)
  local words = vim.split(vim.trim(line), '%s+')
  local position = #words - (lead ~= '' and 1 or 0)
  local candidates = {}
  if position == 1 then
    candidates = names()
  elseif position == 2 and COMMANDS[words[2]] and COMMANDS[words[2]].scopes then
    candidates = SCOPES
  end
  return vim.tbl_filter(function(candidate)
    return vim.startswith(candidate, lead)
  end, candidates)
end

return M
