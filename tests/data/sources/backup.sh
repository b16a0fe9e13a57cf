#!/bin/bash
# Copies a folder (and keeps the last copies).
set -euo pipefail

target="${1:-/var/backups}"
keep=5
names=(alpha beta "gamma delta")

log() {
    local level="$1"
    shift
    printf '%s [%s] %s\n' "$(date +%F)" "$level" "$*" >&2
}

copy() {
    local name="$1" path="$target/$1.tar.gz"
    if [[ -e "$path" && "$name" != alpha ]]; then
        log warn "it exists: $path"
        return 0
    fi
    tar -czf "$path" --exclude='*.tmp' "$name" || return 1
}

for name in "${names[@]}"; do
    copy "$name" && log info "copied ${name^^}"
done

case "$target" in
    /var/*) log info "system" ;;
    *)
        log info "other"
        ;;
esac

cat <<EOF
Copies: ${#names[@]} of $keep
Target: $target
EOF

while read -r line; do
    count=$((count + 1))
    echo "$line" | sed -e 's/(a)/b/' | sort -u
done < <(ls "$target")
