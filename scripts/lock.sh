#!/usr/bin/env bash
# Writes constraints.txt, one pinned version of every dependency for Python 3.10 and newer on every platform, and
# requirements/, the same pins with the hashes of their files: build.txt, run.txt and dev.txt.
# torch is pinned without hashes: which of its builds is right depends on the machine, and each index serves its own.
# The CUDA packages are left out: a CUDA build of torch pins its own.
set -euo pipefail
cd "$(dirname "$0")/.."
uv="${UV:-uv}"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
printf 'hatchling>=1.27\neditables\n' >"$work/build.in"
compile() {
    "$uv" pip compile "$@" --universal --python-version 3.10 --quiet --no-header --no-annotate \
        --no-emit-index-url --no-emit-find-links
}
echo "torch==2.13.0" >"$work/torch"
[ "${UPGRADE:-}" = 1 ] || cp constraints.txt "$work/all" # versions that are pinned stay, unless UPGRADE=1
compile pyproject.toml "$work/build.in" --extra dev --constraint "$work/torch" --output-file "$work/all"
{
    echo "# Pinned versions of every dependency; written by scripts/lock.sh. requirements/ has the same with hashes."
    grep -vE '^(nvidia-|cuda-|triton)' "$work/all"
} >constraints.txt
# Leaves out torch and what only its CUDA builds need, with the hash lines below each.
without_torch() {
    awk '/^[A-Za-z0-9]/ { skip = /^(torch==|nvidia-|cuda-|triton)/ } !skip'
}
for kind in build run dev; do
    case $kind in
    build) inputs=("$work/build.in") ;;
    run) inputs=(pyproject.toml) ;;
    dev) inputs=(pyproject.toml --extra dev) ;;
    esac
    compile "${inputs[@]}" --constraint constraints.txt --generate-hashes --output-file "$work/$kind"
    {
        echo "# Written by scripts/lock.sh: pip install --require-hashes --no-deps -r requirements/$kind.txt"
        without_torch <"$work/$kind"
    } >"requirements/$kind.txt"
done
echo "constraints.txt: $(grep -c == constraints.txt) pins"
