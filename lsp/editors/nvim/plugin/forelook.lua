-- Defines :Forelook and starts the plugin once the configuration has been read.

if vim.g.loaded_forelook then
  return
end
vim.g.loaded_forelook = 1

if vim.fn.has('nvim-0.7') ~= 1 then
  vim.notify('Forelook needs Neovim 0.7 or newer', vim.log.levels.WARN)
  return
end

vim.api.nvim_create_user_command('Forelook', function(command)
  require('forelook.command').execute(command.fargs)
end, {
  nargs = '*',
  desc = 'Forelook: private code completion',
  complete = function(lead, line)
    return require('forelook.command').complete(lead, line)
  end,
})

local function start()
  local started, message = pcall(function()
    require('forelook').start()
  end)
  if not started then
    vim.notify(message, vim.log.levels.ERROR)
  end
end

if vim.v.vim_did_enter == 1 then
  -- Loaded late by a plugin manager, which may call setup() right after this file.
  vim.schedule(start)
else
  vim.api.nvim_create_autocmd('VimEnter', { once = true, callback = start })
end
