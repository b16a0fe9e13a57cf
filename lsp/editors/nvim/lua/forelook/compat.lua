-- Every difference between Neovim 0.7 and today that the rest of the plugin would otherwise have to know.

local M = {}

M.uv = vim.uv or vim.loop
M.has_inline_virtual_text = vim.fn.has('nvim-0.10') == 1
M.has_native_inline_completion = vim.fn.has('nvim-0.12') == 1 and vim.lsp.inline_completion ~= nil

-- Client functions became methods in 0.11; before that they took no self.
local METHODS = vim.fn.has('nvim-0.11') == 1

---@param client table
---@param method string
---@param params table
---@param handler function
---@param buf integer
---@return integer? request_id nil when the server is gone
function M.request(client, method, params, handler, buf)
  local sent, request_id
  if METHODS then
    sent, request_id = client:request(method, params, handler, buf)
  else
    sent, request_id = client.request(method, params, handler, buf)
  end
  return sent and request_id or nil
end

---@param client table
---@param method string
---@param params table
function M.notify(client, method, params)
  if METHODS then
    client:notify(method, params)
  else
    client.notify(method, params)
  end
end

---@param client table
---@param request_id integer
function M.cancel(client, request_id)
  if METHODS then
    client:cancel_request(request_id)
  else
    client.cancel_request(request_id)
  end
end

---@param client table
function M.stop(client)
  if METHODS then
    client:stop()
  else
    client.stop()
  end
end

---@param client table
---@return boolean
function M.is_stopped(client)
  if METHODS then
    return client:is_stopped()
  end
  return client.is_stopped()
end

---Start a server without attaching a buffer.
---@param config table
---@return integer? client_id
function M.start(config)
  if METHODS then
    return vim.lsp.start(config, {
      attach = false,
      reuse_client = function()
        return false
      end,
    })
  end
  return vim.lsp.start_client(config)
end

---What keeps a project's modules, such as its types.py, out of the Python that runs the server.
---@return table<string, string>
function M.server_environment()
  local windows = vim.fn.has('win32') == 1
  local separator, root = windows and ';' or ':', windows and '^%a:[\\/]' or '^/'
  local folders = vim.tbl_filter(function(folder)
    return folder:match(root) ~= nil
  end, vim.split(vim.env.PYTHONPATH or '', separator, { plain = true }))
  return { PYTHONPATH = table.concat(folders, separator), PYTHONSAFEPATH = '1' }
end

---@return string
function M.lsp_log_path()
  if vim.lsp.log and vim.lsp.log.get_filename then
    return vim.lsp.log.get_filename()
  end
  return vim.lsp.get_log_path()
end

---Start a new undo step, so that an accepted suggestion is undone alone.
function M.break_undo()
  vim.cmd('let &l:undolevels = &l:undolevels')
end

---@param group integer
---@param event string|string[]
---@param callback function
---@param buf integer?
function M.autocmd(group, event, callback, buf)
  vim.api.nvim_create_autocmd(event, { group = group, buffer = buf, callback = callback })
end

return M
