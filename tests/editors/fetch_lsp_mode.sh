#!/bin/sh
# Puts Debian sid's lsp-mode and what it needs into FOLDER and prints the EMACSLOADPATH to use them with.
set -eu
. "$(dirname "$0")/debian_sid.sh"

private_apt update
mkdir -p "$folder/debs"
cd "$folder/debs"
private_apt download elpa-lsp-mode elpa-dash elpa-f elpa-ht elpa-s elpa-spinner elpa-lv elpa-markdown-mode
for package in *.deb; do
  dpkg -x "$package" "$root"
done
clean_up
rm -rf "$folder/debs"
# The empty last part stands for Emacs's own folders.
printf '%s:' "$root"/usr/share/emacs/site-lisp/elpa-src/*
echo
