-- Keeps a server's text true after it died. Neovim stops following a buffer that is edited while no server is
-- attached, and never starts again (vim.lsp's on_lines returns true, yet it still counts the buffer as attached);
-- from then on this module sends the whole text on each change. As long as Neovim follows, it only looks on.

local compat = require('forelook.compat')

local api = vim.api
local M = {}

local states = {} -- buffer → { lost: boolean, tick: integer?, version: integer? }

---@param buf integer
---@return string
local function full_text(buf)
  local ends = { unix = '\n', dos = '\r\n', mac = '\r' }
  local line_end = ends[vim.bo[buf].fileformat]
  local text = table.concat(api.nvim_buf_get_lines(buf, 0, -1, true), line_end)
  return vim.bo[buf].endofline and text .. line_end or text
end

---Make sure that a server knows the latest change of a buffer.
---@param buf integer
---@param client table
function M.flush(buf, client)
  local state = states[buf]
  local tick = state and state.tick
  if not tick then
    return
  end
  state.tick = nil
  if not state.lost and vim.lsp.util.buf_versions[buf] == tick then
    return
  end
  state.lost, state.version = true, tick
  compat.notify(client, 'textDocument/didChange', {
    textDocument = { uri = vim.uri_from_bufnr(buf), version = tick },
    contentChanges = { { text = full_text(buf) } },
  })
end

---@param buf integer
---@param get_client fun(buf: integer): table?
function M.watch(buf, get_client)
  if states[buf] then
    return
  end
  local state = { lost = false }
  states[buf] = state
  local function changed(tick)
    if not get_client(buf) then
      return -- the next one gets the whole text when it opens the document
    end
    local waiting = state.tick ~= nil
    state.tick = tick
    if not waiting then
      vim.schedule(function()
        local client = states[buf] == state and api.nvim_buf_is_loaded(buf) and get_client(buf)
        if client then
          M.flush(buf, client)
        end
      end)
    end
  end
  api.nvim_buf_attach(buf, false, {
    on_lines = function(_, _, tick)
      if states[buf] ~= state then
        return true
      end
      changed(tick)
    end,
    on_reload = function()
      if state.lost then
        changed(api.nvim_buf_get_changedtick(buf))
      end
    end,
    on_detach = function()
      if states[buf] == state then
        states[buf] = nil
      end
    end,
  })
end

---@param buf integer
function M.forget(buf)
  states[buf] = nil
end

---The document version the server was last told.
---@param buf integer
---@return integer
function M.version(buf)
  local state = states[buf]
  return state and state.version or vim.lsp.util.buf_versions[buf] or api.nvim_buf_get_changedtick(buf)
end

return M
