/** Entry point: creates the parts and connects them. All decisions about code are made in the language server. */

import * as vscode from "vscode";
import { Session } from "./session";
import { registerCommands } from "./commands";
import { SECTION } from "./config";
import { reportCursor } from "./cursor";
import { Launcher } from "./launcher";
import { LeftToRightOffer } from "./leftToRight";
import { ModelOffer } from "./modelOffer";
import { StatusItem } from "./statusItem";
import { Tokens } from "./tokens";

let session: Session | undefined;

export async function activate(context: vscode.ExtensionContext): Promise<void> {
  const log = vscode.window.createOutputChannel("Forelook", { log: true });
  const item = new StatusItem();
  const leftToRight = new LeftToRightOffer();
  const tokens = new Tokens(context.secrets);
  const own = (session = new Session(log));
  const launcher = new Launcher(context, own, tokens, log);
  const home = context.globalStorageUri.fsPath;
  const modelOffer = new ModelOffer(context.globalState, home, log);

  const draw = (): void => item.draw(own.state);
  const start = (): Promise<void> => launcher.start().catch((error: unknown) => failed(own, log, error));

  context.subscriptions.push(
    log,
    item,
    own,
    registerCommands({ session: own, launcher, tokens, log, home }),
    own.onDidChange(draw),
    own.onDidChange((connection) => void leftToRight.show(connection)),
    own.onDidChange((connection) => void modelOffer.show(connection, launcher.interpreter?.python)),
    vscode.window.onDidChangeActiveTextEditor(draw),
    reportCursor((document, position) => own.reportCursor(document, position)),
    vscode.workspace.onDidGrantWorkspaceTrust(start),
    context.secrets.onDidChange(start),
    vscode.workspace.onDidChangeConfiguration(async (event) => {
      if (!event.affectsConfiguration(SECTION)) {
        return;
      }
      draw();
      if (event.affectsConfiguration(`${SECTION}.server`)) {
        await start();
      } else {
        await own.sendSettings();
      }
    }),
  );
  draw();
  await start();
}

/** VS Code awaits this, so no server outlives its window. */
export async function deactivate(): Promise<void> {
  await session?.stop();
}

async function failed(own: Session, log: vscode.LogOutputChannel, error: unknown): Promise<void> {
  log.error(error instanceof Error ? error : String(error));
  const message = error instanceof Error ? error.message : String(error);
  await own.stop({ kind: "failed", message, retryInS: undefined });
}
