/** The choice of a model: the catalogue as `forelook models` rates it for this machine, a folder, or a hub id. */

import * as vscode from "vscode";
import { setModel } from "./config";
import { DEFAULT_MODEL } from "./defaultModel";
import { run } from "./processes";

const LISTING_TIMEOUT_MS = 60_000;
const STARTER_MODEL = "starter-model";

interface Choice extends vscode.QuickPickItem {
  readonly pick?: () => Thenable<string | undefined>;
  readonly model?: string | null;
}

/** The part of `forelook models --json` that is shown. */
export interface Listing {
  readonly machine: { readonly speed: { readonly was_busy: boolean } | null };
  readonly offer: { readonly model: string; readonly message: string; readonly is_default: boolean } | null;
  readonly installed: readonly { readonly model: string; readonly fault: string }[];
  readonly recommended: readonly Rating[];
}

interface Rating {
  readonly model: { readonly model: string; readonly license: string; readonly download_bytes: number };
  readonly needed_bytes: number;
  readonly fits: boolean;
  /** How fast it would be; none on a GPU. */
  readonly estimate: { readonly tokens_per_s: number; readonly prompt_s: number } | null;
  readonly is_slow: boolean;
  readonly is_best: boolean;
}

/** @param python an interpreter with Forelook; without one the catalogue is not offered */
export async function chooseModel(python: string | undefined, home: string, log: vscode.LogOutputChannel): Promise<void> {
  const current = vscode.workspace.getConfiguration("forelook").get<string | null>("model") ?? null;
  const progress = { location: vscode.ProgressLocation.Window, title: "Forelook models" };
  const rated = await vscode.window.withProgress(progress, () => ratedModels(python, home, log));
  const choices: readonly Choice[] = [
    { label: "Default model", description: `${DEFAULT_MODEL}, adapted for infilling; without it the bundled one`, model: null },
    { label: "Bundled model", description: "small, runs on any CPU", model: STARTER_MODEL },
    { label: "$(folder) A folder…", description: "with a Llama-family checkpoint", pick: pickFolder },
    { label: "$(cloud) A hub id…", description: "such as codellama/CodeLlama-7b-hf", pick: pickHubId },
    ...group("For this machine", rated.filter(({ usable }) => usable)),
    ...group("Too large or too slow for this machine", rated.filter(({ usable }) => !usable)),
  ];
  const items = choices.map((choice) =>
    choice.model === current && choice.kind === undefined ? { ...choice, label: `$(check) ${choice.label}` } : choice,
  );
  const placeHolder = `The model to run; now ${current ?? "the default model"}`;
  const choice = await vscode.window.showQuickPick(items, { placeHolder });
  if (!choice) {
    return;
  }
  if (choice.pick) {
    const model = await choice.pick();
    if (model !== undefined) {
      await setModel(model);
    }
  } else if (choice.model !== undefined) {
    await setModel(choice.model ?? undefined);
  }
}

/** Runs `forelook models`; `undefined`, with the reason in the log, if that fails. */
export async function listModels(python: string, home: string, log: vscode.LogOutputChannel): Promise<Listing | undefined> {
  const device = vscode.workspace.getConfiguration("forelook").get<string>("device", "auto");
  const finished = await run(python, ["-m", "forelook", "models", "--all", "--json", `--device=${device}`], {
    cwd: home,
    signal: AbortSignal.timeout(LISTING_TIMEOUT_MS),
  });
  try {
    // Whatever else prints at startup comes first.
    return JSON.parse(finished.stdout.trim().split("\n").at(-1) ?? "") as Listing;
  } catch {
    log.warn(`forelook models failed (code ${finished.code ?? "none"}): ${finished.lastLine}`);
    return undefined;
  }
}

async function ratedModels(
  python: string | undefined,
  home: string,
  log: vscode.LogOutputChannel,
): Promise<readonly { choice: Choice; usable: boolean }[]> {
  const listing = python === undefined ? undefined : await listModels(python, home, log);
  if (!listing) {
    return [];
  }
  const ready = new Set(listing.installed.filter(({ fault }) => !fault).map(({ model }) => model));
  const others = listing.recommended.filter(({ model }) => model.model !== DEFAULT_MODEL);
  return others.map((rating) => ({
    choice: describe(rating, ready.has(rating.model.model)),
    usable: rating.fits && !rating.is_slow,
  }));
}

function describe({ model, needed_bytes, fits, estimate, is_slow, is_best }: Rating, downloaded: boolean): Choice {
  const notes = [gigabytes(model.download_bytes), model.license];
  if (estimate) {
    notes.push(`about ${Number(estimate.tokens_per_s.toPrecision(2))} tokens/s`);
  }
  if (downloaded) {
    notes.push("downloaded");
  }
  if (is_best) {
    notes.push("recommended");
  } else if (!fits) {
    notes.push(`needs ${gigabytes(needed_bytes)} of memory`);
  } else if (is_slow) {
    notes.push("slower than typing");
  }
  return { label: model.model, description: notes.join(", "), model: model.model };
}

function group(label: string, rated: readonly { choice: Choice }[]): readonly Choice[] {
  return rated.length ? [{ label, kind: vscode.QuickPickItemKind.Separator }, ...rated.map(({ choice }) => choice)] : [];
}

function gigabytes(bytes: number): string {
  return `${(bytes / 1e9).toFixed(1)} GB`;
}

async function pickFolder(): Promise<string | undefined> {
  const options = { canSelectFolders: true, canSelectFiles: false, openLabel: "Use This Model" };
  return (await vscode.window.showOpenDialog(options))?.[0]?.fsPath;
}

async function pickHubId(): Promise<string | undefined> {
  const id = await vscode.window.showInputBox({
    title: "Hub id of the model",
    placeHolder: "owner/name",
    validateInput: (text) => (/^[\w.-]+\/[\w.-]+$/.test(text.trim()) ? undefined : "Write it as owner/name."),
  });
  return id?.trim();
}
