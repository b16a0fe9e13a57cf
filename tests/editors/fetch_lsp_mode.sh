#!/bin/sh
# Puts Debian sid's lsp-mode and what it needs into FOLDER and prints the EMACSLOADPATH to use them with.
# The system is left as it is. Needs apt, dpkg and the Debian archive keyring.
set -eu

[ $# -eq 1 ] || { echo "usage: $0 FOLDER" >&2; exit 2; }
mkdir -p "$1"
folder=$(cd "$1" && pwd)
mkdir -p "$folder"/apt/state/lists/partial "$folder"/apt/cache/archives/partial "$folder"/debs "$folder"/root
: > "$folder/apt/state/status"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian sid main" \
  > "$folder/apt/sources.list"

private_apt() {
  apt-get -qq -o Dir::State="$folder/apt/state" -o Dir::State::status="$folder/apt/state/status" \
    -o Dir::Cache="$folder/apt/cache" -o Dir::Etc::sourcelist="$folder/apt/sources.list" \
    -o Dir::Etc::sourceparts=/dev/null -o APT::Sandbox::User=root "$@"
}
private_apt update
cd "$folder/debs"
private_apt download elpa-lsp-mode elpa-dash elpa-f elpa-ht elpa-s elpa-spinner elpa-lv elpa-markdown-mode
for package in *.deb; do
  dpkg -x "$package" "$folder/root"
done
rm -rf "$folder/apt" "$folder/debs"
# The empty last part stands for Emacs's own folders.
printf '%s:' "$folder"/root/usr/share/emacs/site-lisp/elpa-src/*
echo
