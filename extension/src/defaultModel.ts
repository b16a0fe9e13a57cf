/** The base of the default model: downloaded into the user's model folder, where the server finds it. */

import * as vscode from "vscode";
import { run } from "./processes";
import type { Connection } from "./status";

export const DEFAULT_MODEL = "smollm2-135m";
/** pip's options that say where packages come from; others of `pip install` are none of `pip download`. */
const INDEX_OPTIONS = new Set([
  "-i", "--index-url", "--extra-index-url", "-f", "--find-links", "--no-index", "--proxy", "--cert", "--client-cert",
  "--trusted-host", "--timeout", "--retries",
]);

/** Whether the small bundled model answers only because the default model's base is not there. */
export function lacksDefaultModel(connection: Connection): boolean {
  const status = connection.kind === "running" ? connection.status : undefined;
  return status?.message?.includes(`forelook pull ${DEFAULT_MODEL}`) ?? false;
}

/**
 * Downloads the base, unless it is there.
 *
 * @param home a folder outside the workspace
 * @param report receives a short description of the current step
 * @returns why it failed
 */
export async function pullDefaultModel(
  python: string,
  home: string,
  pipArguments: readonly string[],
  log: vscode.LogOutputChannel,
  report: (doing: string) => void,
  signal: AbortSignal,
): Promise<string | undefined> {
  const doing = "downloading the default model";
  report(doing);
  const args = ["-m", "forelook", "pull", DEFAULT_MODEL, ...indexArguments(pipArguments).map((each) => `--pip-argument=${each}`)];
  log.info(`$ ${[python, ...args].join(" ")}`);
  const onLine = (line: string): void => {
    log.info(line);
    const percent = /, (\d+%)$/.exec(line)?.[1];
    if (percent) {
      report(`${doing}, ${percent}`);
    }
  };
  const finished = await run(python, args, { cwd: home, signal, onLine });
  return finished.code === 0 ? undefined : finished.lastLine;
}

/** The same, with a notification that shows progress and can cancel. */
export async function pullWithProgress(
  python: string,
  home: string,
  pipArguments: readonly string[],
  log: vscode.LogOutputChannel,
): Promise<void> {
  const options = { location: vscode.ProgressLocation.Notification, title: "Forelook", cancellable: true };
  const cancelled = new AbortController();
  const failure = await vscode.window.withProgress(options, (progress, cancellation) => {
    cancellation.onCancellationRequested(() => cancelled.abort());
    return pullDefaultModel(python, home, pipArguments, log, (message) => progress.report({ message }), cancelled.signal);
  });
  if (failure !== undefined && !cancelled.signal.aborted) {
    void vscode.window.showErrorMessage(failure);
  }
}

/** The arguments of `pip install` that `pip download` accepts too. */
export function indexArguments(pipArguments: readonly string[]): readonly string[] {
  const kept: string[] = [];
  let takesNext = false;
  for (const argument of pipArguments) {
    const [name = "", value] = argument.split("=", 2);
    const isOption = argument.startsWith("-");
    if (isOption ? INDEX_OPTIONS.has(name) : takesNext) {
      kept.push(argument);
    }
    takesNext = isOption && INDEX_OPTIONS.has(name) && name !== "--no-index" && value === undefined;
  }
  return kept;
}
