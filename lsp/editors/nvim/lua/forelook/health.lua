-- :checkhealth forelook

local M = {}

-- The functions lost their report_ prefix in 0.10.
local health = vim.health or require('health')
local heading = health.start or health.report_start
local ok = health.ok or health.report_ok
local info = health.info or health.report_info
local warn = health.warn or health.report_warn
local failure = health.error or health.report_error

function M.check()
  local forelook = require('forelook')
  local client = require('forelook.client')
  local compat = require('forelook.compat')

  heading('Neovim')
  local version = vim.version()
  local name = ('%d.%d.%d'):format(version.major, version.minor, version.patch)
  if vim.fn.has('nvim-0.7') ~= 1 then
    failure(('Neovim %s is too old: 0.7 or newer is needed'):format(name))
    return
  end
  ok('Neovim ' .. name)
  forelook.start()
  if forelook.uses_native() then
    ok('suggestions are drawn by vim.lsp.inline_completion')
  elseif compat.has_native_inline_completion then
    info('suggestions are drawn by the plugin (option "renderer" or "auto_trigger")')
  elseif compat.has_inline_virtual_text then
    ok('suggestions are drawn by the plugin, with inline virtual text')
  else
    info('suggestions are drawn by the plugin over the line; inside a line Neovim 0.10 or newer keeps its colours')
  end

  heading('Language server')
  local options = forelook.options()
  local program = options.cmd[1]
  local path = vim.fn.exepath(program)
  if path == '' then
    failure(('"%s" is no program on your PATH'):format(program), {
      'Install Forelook: pip install /path/to/forelook, into an environment whose bin folder is on PATH',
      'Or name the program: require("forelook").setup({ cmd = { "/path/to/forelook-lsp" } })',
    })
  else
    ok(('%s is %s'):format(program, path))
  end
  local servers = client.servers()
  if #servers == 0 then
    info('no server runs; it starts with the first file')
  end
  for _, server in ipairs(servers) do
    local where = server.root ~= '' and server.root or 'files without a workspace'
    local running = server.client_id and vim.lsp.get_client_by_id(server.client_id)
    if not running then
      warn(('the server for %s is not running'):format(where), { 'see :Forelook log', ':Forelook restart starts it' })
    elseif not running.server_capabilities then
      info(('the server for %s is starting'):format(where))
    elseif not running.server_capabilities.inlineCompletionProvider then
      failure(('the server for %s offers no inline completion'):format(where), { 'Is the option "cmd" really forelook-lsp?' })
    else
      ok(('the server for %s runs (columns in %s)'):format(where, running.offset_encoding))
    end
    if server.attempts > 0 then
      warn(('it was restarted %d times in five minutes'):format(server.attempts), { 'see :Forelook log' })
    end
  end
  local current = forelook.status()
  if current.state == 'error' then
    failure(current.message, { 'Run "forelook doctor" in a shell' })
  else
    info(('state: %s %s'):format(current.state, current.message))
  end

  heading('Keys')
  for action, key in pairs(options.keymaps) do
    if key then
      local mapping = vim.fn.maparg(key, 'i', false, true)
      if vim.startswith(mapping.desc or '', 'Forelook') then
        ok(('%s: %s'):format(action, key))
      else
        warn(('%s: %s was mapped by something else after Forelook started'):format(action, key), {
          'Choose another key in the option "keymaps", or map it yourself (:help forelook-keys)',
        })
      end
    end
  end
end

return M
