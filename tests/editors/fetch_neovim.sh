#!/bin/sh
# Puts Debian sid's Neovim, with every library it needs, into FOLDER and a launcher FOLDER/bin/nvim-0.12 beside it.
# The system is left as it is. Needs apt, dpkg and the Debian archive keyring. About 60 MB.
set -eu

[ $# -eq 1 ] || { echo "usage: $0 FOLDER" >&2; exit 2; }
for tool in apt-get dpkg; do
  command -v "$tool" >/dev/null || { echo "$0: needs $tool" >&2; exit 1; }
done
[ "$(dpkg --print-architecture)" = amd64 ] || { echo "$0: knows amd64 only" >&2; exit 1; }

mkdir -p "$1"
folder=$(cd "$1" && pwd)
mkdir -p "$folder"/apt/state/lists/partial "$folder"/apt/cache/archives/partial "$folder"/root "$folder"/bin
: > "$folder/apt/state/status"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian sid main" \
  > "$folder/apt/sources.list"

private_apt() {
  apt-get -qq -o Dir::State="$folder/apt/state" -o Dir::State::status="$folder/apt/state/status" \
    -o Dir::Cache="$folder/apt/cache" -o Dir::Etc::sourcelist="$folder/apt/sources.list" \
    -o Dir::Etc::sourceparts=/dev/null -o APT::Sandbox::User=root "$@"
}
private_apt update
private_apt install -y --no-install-recommends --download-only neovim patchelf

for package in "$folder"/apt/cache/archives/*.deb; do
  dpkg -x "$package" "$folder/root"
done
libraries="$folder/root/usr/lib/x86_64-linux-gnu"
# The fetched patchelf needs the fetched libraries as well: their own loader runs it.
"$libraries/ld-linux-x86-64.so.2" --library-path "$libraries" "$folder/root/usr/bin/patchelf" \
  --set-interpreter "$libraries/ld-linux-x86-64.so.2" --force-rpath --set-rpath "$libraries" \
  "$folder/root/usr/bin/nvim"
printf '#!/bin/sh\nVIMRUNTIME=%s exec %s "$@"\n' \
  "'$folder/root/usr/share/nvim/runtime'" "'$folder/root/usr/bin/nvim'" > "$folder/bin/nvim-0.12"
chmod +x "$folder/bin/nvim-0.12"
rm -rf "$folder/apt"
"$folder/bin/nvim-0.12" --version | head -n 1
