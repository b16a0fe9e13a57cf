/** The status bar's item: draws the view of `status.ts`. */

import * as vscode from "vscode";
import { enabledEverywhere, enabledFor } from "./config";
import { type Connection, type Paused, viewOf } from "./status";

export class StatusItem implements vscode.Disposable {
  private readonly item = vscode.window.createStatusBarItem("forelook.status", vscode.StatusBarAlignment.Right, 100);

  constructor() {
    this.item.name = "Forelook";
    this.item.command = "forelook.showMenu";
    this.item.show();
  }

  draw(connection: Connection): void {
    const languageId = vscode.window.activeTextEditor?.document.languageId;
    const view = viewOf(connection, pausedFor(languageId), languageId);
    this.item.text = view.text;
    this.item.tooltip = new vscode.MarkdownString(view.tooltip.join("\n\n"));
    this.item.accessibilityInformation = { label: view.tooltip.join(", ").replace(/[*\\]/g, ""), role: "button" };
    this.item.backgroundColor =
      view.severity === "normal" ? undefined : new vscode.ThemeColor(`statusBarItem.${view.severity}Background`);
  }

  dispose(): void {
    this.item.dispose();
  }
}

function pausedFor(languageId: string | undefined): Paused {
  if (!enabledEverywhere()) {
    return "everywhere";
  }
  return languageId !== undefined && !enabledFor(languageId) ? "language" : undefined;
}
