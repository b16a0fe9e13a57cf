/** The offer to use a model that was not trained to infill, made where the server refuses it. */

import * as vscode from "vscode";
import { acceptLeftToRight, SECTION } from "./config";
import type { Connection } from "./status";

/** The server's error names the setting that would let the model load. */
const SETTING = `${SECTION}.leftToRight`;

const ACCEPT = "Use It Left to Right";
const CHOOSE = "Choose Another Model…";

export class LeftToRightOffer {
  private readonly offered = new Set<string>();

  /** Whether the server refuses its model for want of the setting. */
  static fits(connection: Connection): boolean {
    return refusal(connection) !== undefined;
  }

  /** Shows the server's message with a button that turns the setting on; once per message and window. */
  async show(connection: Connection): Promise<void> {
    const message = refusal(connection);
    if (message === undefined || this.offered.has(message)) {
      return;
    }
    this.offered.add(message);
    const answer = await vscode.window.showWarningMessage(message, ACCEPT, CHOOSE);
    if (answer === ACCEPT) {
      await acceptLeftToRight();
    } else if (answer === CHOOSE) {
      await vscode.commands.executeCommand(`${SECTION}.chooseModel`);
    }
  }
}

function refusal(connection: Connection): string | undefined {
  const status = connection.kind === "running" ? connection.status : undefined;
  return status?.state === "error" && status.message?.includes(SETTING) ? status.message : undefined;
}
