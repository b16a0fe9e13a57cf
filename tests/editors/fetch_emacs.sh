#!/bin/sh
# Puts Debian sid's Emacs, with every library it needs, into FOLDER and launchers FOLDER/bin/emacs and emacsclient
# beside it: first on PATH, tests/editors/test_emacs.py runs in that Emacs. About 370 MB.
set -eu
. "$(dirname "$0")/debian_sid.sh"

fetch emacs-nox emacs-el emacs-common patchelf
use_own_libraries "$root/usr/bin/emacs-nox" "$root/usr/bin/emacsclient.emacs"
share=$(echo "$root"/usr/share/emacs/[0-9]*)
dump=$(find "$root/usr/libexec/emacs" -name '*.pdmp')
lisp=$(find "$share/lisp" -type d | tr '\n' ':')
cat > "$folder/bin/emacs" <<END
#!/bin/sh
export EMACSLOADPATH="\${EMACSLOADPATH:-}$lisp" EMACSDATA='$share/etc' EMACSDOC='$share/etc' EMACSPATH='$(dirname "$dump")'
exec '$root/usr/bin/emacs-nox' --dump-file='$dump' "\$@"
END
printf '#!/bin/sh\nexec %s "$@"\n' "'$root/usr/bin/emacsclient.emacs'" > "$folder/bin/emacsclient"
chmod +x "$folder/bin/emacs" "$folder/bin/emacsclient"
clean_up
"$folder/bin/emacs" -Q --batch --eval '(message "%s" emacs-version)' 2>&1 | tail -n 1
