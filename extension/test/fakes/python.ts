/** Fake Python interpreters: shell scripts that answer the probe, `-m venv` and `-m pip` as the real one does. */

import { access, chmod, mkdir, symlink, writeFile } from "node:fs/promises";
import path from "node:path";

export interface FakePython {
  readonly version?: readonly [number, number];
  /** The version of Forelook it has; none where left out. */
  readonly forelook?: string;
  /** Shell text that `-m pip` runs, before it leaves Forelook 9.9.9 installed. */
  readonly pip?: string;
  /** Shell text that `-m forelook pull` runs. */
  readonly pull?: string;
  /** What `-m forelook models` prints. */
  readonly models?: string;
}

/** Writes an interpreter. Each call of it adds a line, its working folder and arguments, to `FILE.calls`. */
export async function writePython(file: string, { version = [3, 11], forelook, pip = "", pull = "", models = "" }: FakePython): Promise<string> {
  await mkdir(path.dirname(file), { recursive: true });
  const answer = (installed: string | undefined): string => JSON.stringify({ python: version, forelook: installed ?? null });
  const script = `#!/bin/sh
echo "$PWD|$*" | head -n 1 >> "$0.calls"
case "$1 $2" in
  "-m venv")
    mkdir -p "$3/bin" && sed "s|^installed=.*|installed=|" "$0" > "$3/bin/python" && chmod +x "$3/bin/python"
    exit 0 ;;
  "-m pip")
    ${pip}
    touch "$0.installed"
    exit 0 ;;
esac
case "$*" in
  "-m forelook models --all --json"*)
    echo "a sitecustomize that prints"
    echo '${models}'
    exit 0 ;;
  "-m forelook pull"*)
    ${pull}
    exit 0 ;;
esac
echo "a sitecustomize that prints"
if [ -e "$0.installed" ]; then echo '${answer("9.9.9")}'; else echo '${answer(forelook)}'; fi
`;
  await writeFile(file, script);
  await chmod(file, 0o755);
  return file;
}

/** Makes a folder for PATH that holds what the fakes need, and none of this machine's Pythons. */
export async function makePath(folder: string): Promise<string> {
  await mkdir(folder, { recursive: true });
  for (const name of ["head", "mkdir", "sed", "chmod", "touch", "sleep"]) {
    const places = ["/usr/bin", "/bin"].map((place) => path.join(place, name));
    await symlink(await Promise.any(places.map((place) => access(place).then(() => place))), path.join(folder, name));
  }
  return folder;
}
