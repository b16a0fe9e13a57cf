#!/bin/sh
# Puts Debian sid's Neovim, with every library it needs, into FOLDER and a launcher FOLDER/bin/nvim-0.12 beside it.
# About 60 MB.
set -eu
. "$(dirname "$0")/debian_sid.sh"

fetch neovim patchelf
use_own_libraries "$root/usr/bin/nvim"
printf '#!/bin/sh\nVIMRUNTIME=%s exec %s "$@"\n' \
  "'$root/usr/share/nvim/runtime'" "'$root/usr/bin/nvim'" > "$folder/bin/nvim-0.12"
chmod +x "$folder/bin/nvim-0.12"
clean_up
"$folder/bin/nvim-0.12" --version | head -n 1
