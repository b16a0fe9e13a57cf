#!/usr/bin/env bash
# Makes .venv with pinned dependencies. Usage: scripts/setup.sh run|dev
# PYTHON picks the interpreter; TORCH_INDEX another index for torch (a CPU-only or a CUDA build).
set -euo pipefail
cd "$(dirname "$0")/.."
kind="${1:?usage: scripts/setup.sh run|dev}"
python="${PYTHON:-python3}"
venv="${VENV:-.venv}"

fail() {
    printf 'forelook: %s\n' "$*" >&2
    exit 1
}

command -v "$python" >/dev/null 2>&1 ||
    fail "'$python' was not found. Install Python 3.10 or newer, or name one: make PYTHON=/path/to/python3"
version=$("$python" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])')
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    fail "Python $version is too old: Forelook needs 3.10 or newer. Name another one: make PYTHON=/path/to/python3.12"
"$python" -c 'import venv, ensurepip' 2>/dev/null ||
    fail "Python $version has no 'venv' module. On Debian or Ubuntu: apt install python3-venv; elsewhere install a full Python."

stamp="$venv/.forelook-$kind"
wanted=$(cat pyproject.toml constraints.txt requirements/*.txt scripts/setup.sh | cksum)
[ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && exit 0

cat <<EOF
forelook: making $venv with Python $version and the files whose hashes are in requirements/.
  It downloads torch 2.13.0 (about 200 MB for a CPU build; on Linux the index's default build is for CUDA and comes
  with about 3 GB of CUDA packages: choose another with TORCH_INDEX=URL) and about $([ "$kind" = dev ] && echo 150 || echo 60) MB of other packages.
EOF
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
pip=("$venv/bin/python" -m pip --disable-pip-version-check)
quiet=(--quiet --progress-bar off)
hashed() {
    "${pip[@]}" install "${quiet[@]}" --require-hashes --no-deps -r "requirements/$1.txt" 2> >(grep -v 'is ignored: it is neither' >&2)
}
hashed build
hashed "$kind"
# torch has no hashes here: each index serves other files for one version. What else it needs is already installed, except
# the packages of a CUDA build.
torch=$(grep '^torch==' constraints.txt)
if [ -n "${TORCH_INDEX:-}" ]; then
    "${pip[@]}" install "${quiet[@]}" --index-url "$TORCH_INDEX" "$torch"
else
    "${pip[@]}" install "${quiet[@]}" --constraint constraints.txt "$torch" 2> >(grep -v 'is ignored: it is neither' >&2)
fi
"${pip[@]}" install "${quiet[@]}" --no-deps --no-build-isolation --editable .
echo "$wanted" >"$stamp"
echo "forelook: $venv is ready."
