/** The choice of a model. */

import * as vscode from "vscode";
import { setModel } from "./config";

interface Choice extends vscode.QuickPickItem {
  readonly pick?: () => Thenable<string | undefined>;
  readonly model?: string | null;
}

/** Models known to work; any other Llama-family checkpoint can be named. Sizes are of the weights in 16 bits. */
const CHOICES: readonly Choice[] = [
  { label: "Starter model", description: "comes with Forelook, runs on any CPU", model: null },
  { label: "On a GPU", kind: vscode.QuickPickItemKind.Separator },
  { label: "codellama/CodeLlama-7b-hf", description: "13 GB", model: "codellama/CodeLlama-7b-hf" },
  { label: "codellama/CodeLlama-13b-hf", description: "26 GB", model: "codellama/CodeLlama-13b-hf" },
  { label: "Your own", kind: vscode.QuickPickItemKind.Separator },
  { label: "$(folder) A folder…", description: "with a Llama-family checkpoint", pick: pickFolder },
  { label: "$(cloud) A hub id…", description: "such as codellama/CodeLlama-7b-hf", pick: pickHubId },
];

export async function chooseModel(): Promise<void> {
  const current = vscode.workspace.getConfiguration("forelook").get<string | null>("model") ?? null;
  const items = CHOICES.map((choice) =>
    choice.model === current && choice.kind === undefined ? { ...choice, label: `$(check) ${choice.label}` } : choice,
  );
  const placeHolder = `The model to run; now ${current ?? "the starter model"}`;
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

async function pickFolder(): Promise<string | undefined> {
  const options = { canSelectFolders: true, canSelectFiles: false, openLabel: "Use This Model" };
  return (await vscode.window.showOpenDialog(options))?.[0]?.fsPath;
}

async function pickHubId(): Promise<string | undefined> {
  const id = await vscode.window.showInputBox({
    title: "A model's id on the hub",
    placeHolder: "owner/name",
    validateInput: (text) => (/^[\w.-]+\/[\w.-]+$/.test(text.trim()) ? undefined : "Write it as owner/name."),
  });
  return id?.trim();
}
