/** The default model where its base is missing, or a larger one, offered once where this machine can run it. */

import * as vscode from "vscode";
import { serverSettings, setModel } from "./config";
import { pullWithProgress } from "./defaultModel";
import { listModels } from "./models";
import type { Connection } from "./status";

const OFFERED = "modelOffered";
const USE = "Download and Use";
const CHOOSE = "Show All Models…";
/** Rating the models takes all cores for seconds; the first suggestions come first. */
const OFFER_AFTER_MS = 20_000;

export class ModelOffer {
  private asking = false;

  constructor(
    private readonly memory: vscode.Memento,
    private readonly home: string,
    private readonly log: vscode.LogOutputChannel,
    private readonly delayMs = OFFER_AFTER_MS,
  ) {}

  /**
   * Asks a while after the bundled model runs.
   * @param python the interpreter of a local server; none over websocket
   */
  async show(connection: Connection, python: string | undefined): Promise<void> {
    const ready = connection.kind === "running" && connection.status?.state === "ready";
    const chosen = vscode.workspace.getConfiguration("forelook").get<string | null>("model") ?? undefined;
    if (!ready || python === undefined || chosen !== undefined || this.asking || this.memory.get(OFFERED)) {
      return;
    }
    this.asking = true;
    await new Promise((resolve) => setTimeout(resolve, this.delayMs));
    const listing = await listModels(python, this.home, this.log);
    if (!listing || listing.machine.speed?.was_busy) {
      return; // the next window finds out more
    }
    await this.memory.update(OFFERED, true);
    if (!listing.offer) {
      return;
    }
    const { model, message, is_default: isDefault } = listing.offer;
    const answer = await vscode.window.showInformationMessage(`${message}.`, USE, CHOOSE);
    if (answer === USE && isDefault) {
      // It runs where no model is chosen: the next suggestion is its own.
      await pullWithProgress(python, this.home, serverSettings().pipArguments, this.log);
    } else if (answer === USE) {
      await setModel(model);
    } else if (answer === CHOOSE) {
      await vscode.commands.executeCommand("forelook.chooseModel");
    }
  }
}
