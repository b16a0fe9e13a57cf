/** Makes the private environment: a virtual environment of the extension's own with Forelook in it. */

import { mkdir, readdir, rm } from "node:fs/promises";
import * as path from "node:path";
import type * as vscode from "vscode";
import type { InterpreterFinder } from "./interpreter";
import { run } from "./processes";

export class InstallError extends Error {
  override readonly name = "InstallError";
}

/** What the environment is made of. */
export interface Installation {
  /** The extension's folder, whose `server/` holds the wheel that belongs to this version. */
  readonly extensionPath: string;
  readonly version: string;
  /** Where PyTorch comes from, if not from where the rest does. */
  readonly torchIndex: string | undefined;
  readonly pipArguments: readonly string[];
}

/**
 * Makes the private environment anew and installs Forelook into it.
 *
 * @param report told, in a few words, what is being done
 * @returns the interpreter, which has Forelook
 * @throws InstallError with what is missing, for people
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
    throw new InstallError("Python 3.10 or newer was not found. Install it, see that `python3` is on PATH, and try again.");
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
      "making the environment",
      base,
      ["-m", "venv", finder.privateEnvironment],
      "Python could not make an environment (on Debian and Ubuntu it needs the package python3-venv)",
    );
    const pip = ["-m", "pip", "install", "--no-input", "--disable-pip-version-check"];
    if (installation.torchIndex !== undefined) {
      // By itself: an index beside the main one would be asked for every package.
      await step(
        "downloading PyTorch",
        finder.privatePython,
        [...pip, "--index-url", installation.torchIndex, ...installation.pipArguments, "torch"],
        `pip could not install PyTorch from ${new URL(installation.torchIndex).host}`,
      );
    }
    const source = (await bundledWheel(installation.extensionPath)) ?? `forelook==${installation.version}`;
    await step(
      "downloading",
      finder.privatePython,
      [...pip, ...installation.pipArguments, source],
      "pip could not install Forelook",
    );
  } catch (error) {
    // Half an environment would be found, and fail, at the next start.
    await rm(finder.privateEnvironment, { recursive: true, force: true });
    throw error;
  }
  const probe = await finder.probe(finder.privatePython);
  if (probe?.forelook === undefined) {
    throw new InstallError("pip reported success, yet Python cannot import Forelook; the log has the details.");
  }
  return finder.privatePython;
}

/** The wheel shipped with the extension, so that both are of one version. */
export async function bundledWheel(extensionPath: string): Promise<string | undefined> {
  const folder = path.join(extensionPath, "server");
  const names = await readdir(folder).catch(() => [] as string[]);
  const wheel = names.find((name) => name.startsWith("forelook-") && name.endsWith(".whl"));
  return wheel && path.join(folder, wheel);
}

/** A line of pip's output in words for the progress notification, or nothing. */
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
