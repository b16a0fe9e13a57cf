-- The language server: one per workspace folder, started on demand, restarted after a crash.

local compat = require('forelook.compat')
local status = require('forelook.status')
local sync = require('forelook.sync')

local api = vim.api
local M = {}

local METHOD = 'textDocument/inlineCompletion'
local SERVER_NAME = 'forelook-lsp'
local RESTART_WINDOW_S = 300
local SILENT_ERRORS = { [-32800] = true, [-32801] = true, [-32802] = true } -- cancelled, modified, server cancelled

local options
local servers = {} -- root ('' where none) → { client_id, attempts: seconds[] }
local buffers = {} -- buffer → { root, uri }: the uri its document was opened under
local on_ready = function() end

---@param opts table
---@param ready fun(client: table, buf: integer) called when a server is ready for a buffer
function M.configure(opts, ready)
  options = opts
  on_ready = ready
end

---@param path string
---@return string? root
local function find_root(path)
  local folder = vim.fn.fnamemodify(path, ':h')
  while true do
    for _, marker in ipairs(options.root_markers) do
      if compat.uv.fs_stat(folder .. '/' .. marker) then
        return folder
      end
    end
    local parent = vim.fn.fnamemodify(folder, ':h')
    if parent == folder then
      return nil
    end
    folder = parent
  end
end

---@return table
local function capabilities()
  local caps = vim.lsp.protocol.make_client_capabilities()
  caps.textDocument.inlineCompletion = { dynamicRegistration = false }
  return caps
end

---@param err table? LSP error
---@return boolean whether a person should hear of it
function M.is_real_error(err)
  return err ~= nil and not SILENT_ERRORS[err.code]
end

local start

---@param root string
---@param code integer
---@param signal integer
local function on_exit(root, client_id, code, signal)
  local server = servers[root]
  if not server or server.client_id ~= client_id then
    return -- a later one has taken its place
  end
  server.client_id = nil
  local now = os.time()
  server.attempts = vim.tbl_filter(function(at)
    return now - at < RESTART_WINDOW_S
  end, server.attempts)
  local how = ('the language server ended (exit code %d, signal %d)'):format(code, signal)
  if #server.attempts >= options.max_restarts then
    status.set('error', how .. '; see :Forelook log, then :Forelook restart')
    status.warn(how, 'see :Forelook log')
    return
  end
  table.insert(server.attempts, now)
  status.set('starting', how .. ', restarting it')
  -- At once the first time, then after one, two, four … seconds.
  local delay_ms = #server.attempts == 1 and 0 or 1000 * 2 ^ (#server.attempts - 2)
  vim.defer_fn(function()
    if servers[root] == server and not server.client_id then
      start(root)
    end
  end, delay_ms)
end

---@param root string
---@return integer? client_id
start = function(root)
  local server = servers[root] or { attempts = {} }
  servers[root] = server
  if vim.fn.executable(options.cmd[1]) ~= 1 then
    local message = ('"%s" is no program on your PATH; install Forelook, or set the option "cmd"'):format(options.cmd[1])
    if status.get().message ~= message then
      status.set('error', message)
      status.warn(message)
    end
    return nil
  end
  status.set('starting')
  local folder = root ~= '' and { uri = vim.uri_from_fname(root), name = vim.fn.fnamemodify(root, ':t') } or nil
  -- An empty Lua table would be sent as a list.
  local settings = next(options.server) ~= nil and options.server or vim.empty_dict()
  local config = {
    name = 'forelook',
    cmd = options.cmd,
    cmd_env = compat.server_environment(),
    root_dir = root ~= '' and root or nil,
    workspace_folders = folder and { folder } or nil,
    capabilities = capabilities(),
    -- Neovim 0.7's debounce can send a change twice, the second time empty and under the same version.
    flags = { debounce_text_changes = 0 },
    init_options = settings,
    settings = { forelook = settings },
    handlers = {
      ['$/progress'] = function(err, params, ctx, ...)
        status.on_progress(params)
        local default = vim.lsp.handlers['$/progress']
        if default then
          return default(err, params, ctx, ...)
        end
      end,
      ['forelook/status'] = function(_, params)
        status.on_status(params)
      end,
      ['didChangeStatus'] = function(_, params)
        status.on_change_status(params)
      end,
    },
    on_init = function(client, result)
      if not client.server_capabilities.inlineCompletionProvider then
        status.set('error', 'the server offers no inline completion; is "cmd" really forelook-lsp?')
        return
      end
      -- Our server reports when it is ready; any other one is assumed to be.
      local name = type(result) == 'table' and type(result.serverInfo) == 'table' and result.serverInfo.name
      local says_so = name == SERVER_NAME and options.server.statusNotifications ~= false
      if status.get().state == 'starting' and not says_so then
        status.set('ready')
      end
    end,
    on_attach = function(client, buf)
      if not buffers[buf] then
        -- Switched off while the server was starting.
        vim.schedule(function()
          if api.nvim_buf_is_loaded(buf) and client.attached_buffers[buf] then
            vim.lsp.buf_detach_client(buf, client.id)
          end
        end)
      elseif client.server_capabilities.inlineCompletionProvider then
        on_ready(client, buf)
      end
    end,
    on_exit = function(code, signal, client_id)
      vim.schedule(function()
        on_exit(root, client_id, code, signal)
      end)
    end,
  }
  server.client_id = compat.start(config)
  if not server.client_id then
    status.set('error', 'the language server could not be started; see :Forelook log')
    return nil
  end
  for buf, document in pairs(buffers) do
    if document.root == root and api.nvim_buf_is_loaded(buf) then
      vim.lsp.buf_attach_client(buf, server.client_id)
    end
  end
  return server.client_id
end

---@param buf integer
function M.attach(buf)
  if buffers[buf] then
    return
  end
  local name = api.nvim_buf_get_name(buf)
  local root = find_root(name ~= '' and vim.fn.fnamemodify(name, ':p') or vim.fn.getcwd() .. '/unnamed') or ''
  buffers[buf] = { root = root, uri = vim.uri_from_bufnr(buf) }
  sync.watch(buf, M.get)
  local server = servers[root]
  if server and server.client_id then
    vim.lsp.buf_attach_client(buf, server.client_id)
  elseif not server then
    start(root)
  end
end

---@param buf integer
function M.detach(buf)
  local client, document = M.get(buf), buffers[buf]
  buffers[buf] = nil
  sync.forget(buf)
  if client and api.nvim_buf_is_loaded(buf) then
    if document.uri ~= vim.uri_from_bufnr(buf) then
      -- Renamed: Neovim closes the document by its new name, which the server has never heard.
      compat.notify(client, 'textDocument/didClose', { textDocument = { uri = document.uri } })
    end
    vim.lsp.buf_detach_client(buf, client.id)
  end
end

---@param buf integer
---@return boolean whether the buffer got another name since its document was opened
function M.was_renamed(buf)
  return buffers[buf] ~= nil and buffers[buf].uri ~= vim.uri_from_bufnr(buf)
end

---@param buf integer
---@return boolean
function M.is_attached(buf)
  return buffers[buf] ~= nil
end

---@param buf integer
---@return table? client only once it can be asked
function M.get(buf)
  local server = buffers[buf] and servers[buffers[buf].root]
  local client = server and server.client_id and vim.lsp.get_client_by_id(server.client_id)
  if not client or compat.is_stopped(client) or not client.attached_buffers[buf] then
    return nil
  end
  return client.server_capabilities.inlineCompletionProvider and client or nil
end

---@return table[] { root, client_id, attempts } for every workspace
function M.servers()
  local list = {}
  for root, server in pairs(servers) do
    table.insert(list, { root = root, client_id = server.client_id, attempts = #server.attempts })
  end
  return list
end

local function stop_all()
  for root, server in pairs(servers) do
    local client = server.client_id and vim.lsp.get_client_by_id(server.client_id)
    servers[root] = nil -- so that its end is no surprise
    if client then
      compat.stop(client)
    end
  end
end

---Stop every server and start it again with the buffers it had.
function M.restart()
  stop_all()
  local roots = {}
  for _, document in pairs(buffers) do
    roots[document.root] = true
  end
  for root in pairs(roots) do
    start(root)
  end
end

---Stop every server for good, as when suggestions are switched off everywhere.
function M.stop()
  stop_all()
  for buf in pairs(buffers) do
    sync.forget(buf)
  end
  buffers = {}
  status.set('stopped')
end

---@param buf integer
---@param position table
---@param trigger_kind 1|2
---@param handler fun(err: table?, result: any)
---@return fun()? cancel nil when the server is gone
function M.complete(buf, client, position, trigger_kind, handler)
  sync.flush(buf, client)
  local params = {
    textDocument = { uri = vim.uri_from_bufnr(buf), version = sync.version(buf) },
    position = position,
    context = { triggerKind = trigger_kind },
  }
  local open = true
  local function close()
    if open then
      open = false
      status.count_request(-1)
    end
  end
  local request_id = compat.request(client, METHOD, params, function(err, result)
    close()
    handler(err, result)
  end, buf)
  if not request_id then
    return nil
  end
  status.count_request(1)
  return function()
    if open then
      close()
      if not compat.is_stopped(client) then
        compat.cancel(client, request_id)
      end
    end
  end
end

---@param client_id integer
---@param method string
---@param params table
function M.notify(client_id, method, params)
  local client = vim.lsp.get_client_by_id(client_id)
  if client and not compat.is_stopped(client) then
    compat.notify(client, method, params)
  end
end

---Run a command of the server by its full id.
---@param client table
---@param command string
---@param arguments any[]?
---@param handler fun(err: table?, result: any)?
function M.execute(client, command, arguments, handler)
  compat.request(client, 'workspace/executeCommand', { command = command, arguments = arguments or {} }, handler or function() end, api.nvim_get_current_buf())
end

---The full id of one of the server's commands; an id may carry a suffix that makes it unique.
---@param client table
---@param name string such as "forelook.stats"
---@return string?
function M.find_command(client, name)
  local provider = client.server_capabilities.executeCommandProvider
  for _, id in ipairs(type(provider) == 'table' and provider.commands or {}) do
    if id == name or vim.startswith(id, name .. '.') then
      return id
    end
  end
  return nil
end

return M
