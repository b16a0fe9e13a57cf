#!/usr/bin/env bash
# Writes constraints.txt: one pinned version of every dependency for Python 3.10 and newer, on every platform.
# The CUDA packages are left out: a CUDA build of torch pins its own.
set -euo pipefail
cd "$(dirname "$0")/.."
uv="${UV:-uv}"
pins=$(mktemp)
trap 'rm -f "$pins" "$pins.in"' EXIT
echo "torch==2.13.0" >"$pins.in"
"$uv" pip compile pyproject.toml --extra dev --constraint "$pins.in" --universal --python-version 3.10 --quiet \
    --no-header --no-annotate --no-emit-index-url --no-emit-find-links --output-file "$pins"
{
    echo "# Pinned versions of every dependency; written by scripts/lock.sh, used by the Makefile (pip install -c)."
    grep -vE '^(nvidia-|cuda-|triton)' "$pins"
} >constraints.txt
echo "constraints.txt: $(grep -c == constraints.txt) pins"
