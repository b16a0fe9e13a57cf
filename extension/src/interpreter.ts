/** Finds a Python interpreter with Forelook installed. */

import { mkdir, readdir, realpath } from "node:fs/promises";
import * as path from "node:path";
import * as vscode from "vscode";
import { findOnPath, run } from "./processes";

export const MINIMUM_PYTHON: readonly [number, number] = [3, 10];
const PROBE_TIMEOUT_MS = 20_000;

const PROBE = `
import json, sys
try:
    import forelook, forelook_lsp
    version = forelook.__version__
except ImportError:
    version = None
print(json.dumps({"python": sys.version_info[:2], "forelook": version}))
`;

export type Origin = "setting" | "private environment" | "Python extension" | "PATH";

export interface Candidate {
  readonly python: string;
  readonly origin: Origin;
}

export interface Probe {
  readonly python: readonly [number, number];
  readonly forelook: string | undefined;
}

/** An interpreter with Forelook. */
export interface Interpreter extends Candidate {
  readonly version: string;
}

/** One searched place and the outcome, shown to users without Forelook. */
export interface Attempt extends Candidate {
  readonly outcome: "no such program" | "Python is too old" | "without Forelook";
}

export interface Search {
  readonly found: Interpreter | undefined;
  readonly attempts: readonly Attempt[];
}

export class InterpreterFinder {
  /**
   * @param home the extension's folder: programs run there, never in the workspace
   * @param log records that the Python extension did not respond
   */
  constructor(
    private readonly home: string,
    private readonly log: vscode.LogOutputChannel,
  ) {}

  /** The private environment's interpreter, whether it exists or not. */
  get privatePython(): string {
    const inside = process.platform === "win32" ? ["Scripts", "python.exe"] : ["bin", "python"];
    return path.join(this.privateEnvironment, ...inside);
  }

  get privateEnvironment(): string {
    return path.join(this.home, "environment");
  }

  /** Checks only the setting if there is one: a wrong setting must be reported, not worked around. */
  async search(setting: string | undefined): Promise<Search> {
    const attempts: Attempt[] = [];
    for (const candidate of setting ? [{ python: setting, origin: "setting" as const }] : await this.candidates()) {
      const probe = await this.probe(candidate.python);
      if (probe?.forelook !== undefined && isRecent(probe)) {
        return { found: { ...candidate, version: probe.forelook }, attempts };
      }
      const outcome = !probe ? "no such program" : isRecent(probe) ? "without Forelook" : "Python is too old";
      attempts.push({ ...candidate, outcome });
    }
    return { found: undefined, attempts };
  }

  /** An interpreter that can create a private environment. */
  async basePython(): Promise<string | undefined> {
    for (const { python, origin } of await this.candidates()) {
      const probe = origin === "private environment" ? undefined : await this.probe(python);
      if (probe && isRecent(probe)) {
        return python;
      }
    }
    return undefined;
  }

  async probe(python: string): Promise<Probe | undefined> {
    await mkdir(this.home, { recursive: true, mode: 0o700 });
    const finished = await run(python, ["-c", PROBE], {
      cwd: this.home,
      signal: AbortSignal.timeout(PROBE_TIMEOUT_MS),
    });
    return finished.code === 0 ? parseProbe(finished.stdout) : undefined;
  }

  private async candidates(): Promise<Candidate[]> {
    const candidates: Candidate[] = [
      { python: this.privatePython, origin: "private environment" },
      ...(await this.pythonExtensionInterpreters()).map((python) => ({ python, origin: "Python extension" as const })),
      ...(await interpretersOnPath()).map((python) => ({ python, origin: "PATH" as const })),
    ];
    const seen = new Set<string>();
    return candidates.filter(({ python }) => !seen.has(python) && seen.add(python));
  }

  private async pythonExtensionInterpreters(): Promise<string[]> {
    try {
      return await pythonExtensionInterpreters();
    } catch (error) {
      this.log.warn(`The Python extension returned no interpreter: ${String(error)}`);
      return [];
    }
  }
}

function isRecent({ python: [major, minor] }: Probe): boolean {
  return major > MINIMUM_PYTHON[0] || (major === MINIMUM_PYTHON[0] && minor >= MINIMUM_PYTHON[1]);
}

function parseProbe(output: string): Probe | undefined {
  // A sitecustomize may print first; the answer is the last line.
  const line = output.trim().split("\n").at(-1) ?? "";
  let answer: { python?: unknown; forelook?: unknown } | null;
  try {
    answer = JSON.parse(line) as typeof answer;
  } catch {
    return undefined;
  }
  const [major, minor]: unknown[] = Array.isArray(answer?.python) ? answer.python : [];
  if (typeof major !== "number" || typeof minor !== "number") {
    return undefined;
  }
  return { python: [major, minor], forelook: typeof answer?.forelook === "string" ? answer.forelook : undefined };
}

async function interpretersOnPath(): Promise<string[]> {
  const found: string[] = [];
  // pipx and uv put `forelook-lsp` on PATH as a link; the interpreter is in the target's folder.
  const launcher = await findOnPath("forelook-lsp");
  if (launcher) {
    const folder = path.dirname(await realpath(launcher));
    const names = (await readdir(folder)).filter((name) => /^python(\.exe)?$/.test(name));
    found.push(...names.map((name) => path.join(folder, name)));
  }
  for (const name of ["python3", "python", "python3.13", "python3.12", "python3.11", "python3.10"]) {
    const python = await findOnPath(name);
    if (python) {
      found.push(python);
    }
  }
  return found;
}

/** The part of the Python extension's public interface used here. */
interface PythonExtension {
  readonly environments: {
    getActiveEnvironmentPath(resource?: vscode.Uri): { readonly path: string };
    resolveEnvironment(environment: {
      readonly path: string;
    }): Promise<{ readonly executable: { readonly uri?: vscode.Uri } } | undefined>;
  };
}

async function pythonExtensionInterpreters(): Promise<string[]> {
  const extension = vscode.extensions.getExtension<Partial<PythonExtension>>("ms-python.python");
  if (!extension) {
    return [];
  }
  const { environments } = await extension.activate();
  if (!environments) {
    return [];
  }
  const resource = vscode.workspace.workspaceFolders?.[0]?.uri;
  const resolved = await environments.resolveEnvironment(environments.getActiveEnvironmentPath(resource));
  const executable = resolved?.executable.uri?.fsPath;
  return executable ? [executable] : [];
}
