-- Options: defaults, merging, and a check that names the field, the value and the way out.

local M = {}

M.defaults = {
  -- How the language server is started.
  cmd = { 'forelook-lsp' },
  -- Sent to the server as initializationOptions and as its "forelook" configuration section.
  server = {},
  -- Where a workspace begins: the nearest folder upwards that has one of these.
  root_markers = { '.git', '.hg', 'pyproject.toml', 'package.json', 'Cargo.toml', 'go.mod', 'Makefile' },
  -- false switches a filetype off; "*" is every filetype not named.
  filetypes = { ['*'] = true, gitcommit = false, gitrebase = false, help = false, netrw = false, qf = false },
  -- Larger buffers are left alone.
  max_file_bytes = 2 * 1024 * 1024,
  -- Ask while typing; otherwise only when triggered.
  auto_trigger = true,
  -- Pause in typing before the server is asked.
  debounce_ms = 50,
  -- "auto": vim.lsp.inline_completion where Neovim has it, else "own"; "own": always draw here.
  renderer = 'auto',
  -- Insert-mode keys; false leaves one unmapped, keymaps = false all of them.
  keymaps = {
    accept = '<Tab>',
    accept_word = '<M-Right>',
    accept_line = '<M-Down>',
    next = '<M-]>',
    prev = '<M-[>',
    dismiss = '<C-]>',
    trigger = '<M-\\>',
  },
  -- Maximum number of restarts of a crashing server within five minutes.
  max_restarts = 3,
}

local RENDERERS = { auto = true, native = true, own = true }

---@param field string
---@param value any
---@param expected string
local function reject(field, value, expected)
  error(('forelook: option "%s" is %s, but must be %s; see :help forelook-options'):format(field, vim.inspect(value), expected), 0)
end

---@param options table
---@param field string
---@param kind string
local function need(options, field, kind)
  if type(options[field]) ~= kind then
    reject(field, options[field], 'a ' .. kind)
  end
end

---@param options table
local function check(options)
  for field in pairs(options) do
    if M.defaults[field] == nil then
      local known = vim.tbl_keys(M.defaults)
      table.sort(known)
      error(('forelook: there is no option "%s"; the options are %s'):format(field, table.concat(known, ', ')), 0)
    end
  end
  local cmd = options.cmd
  if type(cmd) ~= 'table' or #cmd == 0 then
    reject('cmd', cmd, 'a list: the program and its arguments')
  end
  for _, part in ipairs(cmd) do
    if type(part) ~= 'string' then
      reject('cmd', cmd, 'a list of strings')
    end
  end
  for _, field in ipairs({ 'server', 'root_markers', 'filetypes', 'keymaps' }) do
    need(options, field, 'table')
  end
  for _, field in ipairs({ 'max_file_bytes', 'debounce_ms', 'max_restarts' }) do
    need(options, field, 'number')
    if options[field] < 0 then
      reject(field, options[field], 'zero or more')
    end
  end
  need(options, 'auto_trigger', 'boolean')
  if not RENDERERS[options.renderer] then
    reject('renderer', options.renderer, '"auto", "native" or "own"')
  end
  for filetype, enabled in pairs(options.filetypes) do
    if type(filetype) ~= 'string' or type(enabled) ~= 'boolean' then
      reject('filetypes', options.filetypes, 'a table from filetype to true or false, such as { markdown = false }')
    end
  end
  for action, key in pairs(options.keymaps) do
    if M.defaults.keymaps[action] == nil then
      reject('keymaps.' .. tostring(action), key, 'one of ' .. table.concat(vim.tbl_keys(M.defaults.keymaps), ', '))
    end
    if key ~= false and (type(key) ~= 'string' or key == '') then
      reject('keymaps.' .. action, key, 'a key such as "<Tab>", or false')
    end
  end
end

---@param given table?
---@return table options
function M.merge(given)
  if given ~= nil and type(given) ~= 'table' then
    reject('setup', given, 'a table')
  end
  given = vim.deepcopy(given or {})
  if given.keymaps == false then
    given.keymaps = {}
    for action in pairs(M.defaults.keymaps) do
      given.keymaps[action] = false
    end
  end
  local options = vim.tbl_deep_extend('force', M.defaults, given)
  -- Lists are replaced, never merged item by item.
  for _, field in ipairs({ 'cmd', 'root_markers' }) do
    if given[field] ~= nil then
      options[field] = given[field]
    end
  end
  check(options)
  return options
end

return M
