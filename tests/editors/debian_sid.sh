# Sourced by the fetch scripts: packages of Debian sid in a folder of their own. The system is left as it is.
# Needs apt, dpkg and the Debian archive keyring. Sets $folder, $root and $libraries.

[ $# -eq 1 ] || { echo "usage: $0 FOLDER" >&2; exit 2; }
for tool in apt-get dpkg; do
  command -v "$tool" >/dev/null || { echo "$0: needs $tool" >&2; exit 1; }
done
mkdir -p "$1"
folder=$(cd "$1" && pwd)
root="$folder/root"
libraries="$root/usr/lib/x86_64-linux-gnu"
mkdir -p "$folder"/apt/state/lists/partial "$folder"/apt/cache/archives/partial "$root" "$folder"/bin
: > "$folder/apt/state/status"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian sid main" \
  > "$folder/apt/sources.list"

private_apt() {
  apt-get -qq -o Dir::State="$folder/apt/state" -o Dir::State::status="$folder/apt/state/status" \
    -o Dir::Cache="$folder/apt/cache" -o Dir::Etc::sourcelist="$folder/apt/sources.list" \
    -o Dir::Etc::sourceparts=/dev/null -o APT::Sandbox::User=root "$@"
}

# fetch PACKAGE...: these and all they depend on, unpacked below $root.
fetch() {
  private_apt update
  private_apt install -y --no-install-recommends --download-only "$@"
  for package in "$folder"/apt/cache/archives/*.deb; do
    dpkg -x "$package" "$root"
  done
}

# use_own_libraries PROGRAM...: makes programs of sid run on an older system. Needs patchelf to be fetched too.
use_own_libraries() {
  [ "$(dpkg --print-architecture)" = amd64 ] || { echo "$0: knows amd64 only" >&2; exit 1; }
  for program in "$@"; do
    # The fetched patchelf needs the fetched libraries as well: their own loader runs it.
    "$libraries/ld-linux-x86-64.so.2" --library-path "$libraries" "$root/usr/bin/patchelf" \
      --set-interpreter "$libraries/ld-linux-x86-64.so.2" --force-rpath --set-rpath "$libraries" "$program"
  done
}

clean_up() {
  rm -rf "$folder/apt"
}
