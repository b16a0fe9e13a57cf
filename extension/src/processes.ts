/** Short-lived child processes: run one until it exits, or find one on PATH. */

import { type ChildProcess, spawn } from "node:child_process";
import { constants } from "node:fs";
import { access } from "node:fs/promises";
import * as path from "node:path";
import { createInterface } from "node:readline";

export interface RunOptions {
  /** Never the workspace: Python would import modules from there. */
  readonly cwd: string;
  readonly signal?: AbortSignal;
  readonly onLine?: (line: string) => void;
}

export interface Finished {
  /** `undefined` if the program could not be started or was killed. */
  readonly code: number | undefined;
  readonly stdout: string;
  readonly lastLine: string;
}

/** Runs a program until it exits. A missing program is a result, not an error. */
export function run(command: string, args: readonly string[], options: RunOptions): Promise<Finished> {
  return new Promise((resolve) => {
    const child = spawn(command, args, {
      cwd: options.cwd,
      stdio: ["ignore", "pipe", "pipe"],
      windowsHide: true,
      ...(options.signal && { signal: options.signal }),
    });
    let stdout = "";
    let lastLine = "";
    child.stdout.on("data", (chunk: Buffer) => (stdout += chunk.toString("utf8")));
    for (const stream of [child.stdout, child.stderr]) {
      createInterface({ input: stream }).on("line", (line) => {
        if (line.trim()) {
          lastLine = line.trim();
          options.onLine?.(line);
        }
      });
    }
    child.once("error", (error) => {
      lastLine ||= error.message;
      // A program that started and is being killed still emits `close`.
      if (child.pid === undefined) {
        resolve({ code: undefined, stdout, lastLine });
      }
    });
    child.once("close", (code) => resolve({ code: code ?? undefined, stdout, lastLine }));
  });
}

/** The full path of a program on PATH, as a shell would find it. */
export async function findOnPath(name: string): Promise<string | undefined> {
  const suffixes = process.platform === "win32" ? (process.env["PATHEXT"] ?? ".EXE").split(";") : [""];
  for (const folder of (process.env["PATH"] ?? "").split(path.delimiter)) {
    // A relative entry of PATH would look in the workspace.
    if (!path.isAbsolute(folder)) {
      continue;
    }
    for (const suffix of suffixes) {
      const candidate = path.join(folder, name + suffix.toLowerCase());
      if (await isExecutable(candidate)) {
        return candidate;
      }
    }
  }
  return undefined;
}

export async function isExecutable(file: string): Promise<boolean> {
  try {
    await access(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** Waits for a child to exit, then kills it. */
export async function endWithin(child: ChildProcess, milliseconds: number): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) {
    return;
  }
  await new Promise<void>((resolve) => {
    const timer = setTimeout(() => child.kill("SIGKILL"), milliseconds);
    child.once("exit", () => {
      clearTimeout(timer);
      resolve();
    });
  });
}
