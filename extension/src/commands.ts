/** Commands of the palette and of the status item's menu. */

import * as vscode from "vscode";
import type { Session } from "./session";
import * as config from "./config";
import { lacksDefaultModel, pullWithProgress } from "./defaultModel";
import { LeftToRightOffer } from "./leftToRight";
import { chooseModel } from "./models";
import { run } from "./processes";
import { Reports, statisticsPage } from "./report";
import type { Launcher } from "./launcher";
import type { Tokens } from "./tokens";

const NOT_RUNNING = "Forelook's language server is not running; see the status bar for the reason.";
const DOCTOR_TIMEOUT_MS = 120_000;

/** The parts that commands act on. */
export interface Parts {
  readonly session: Session;
  readonly launcher: Launcher;
  readonly tokens: Tokens;
  readonly log: vscode.LogOutputChannel;
  readonly home: string;
}

export function registerCommands(parts: Parts): vscode.Disposable {
  const reports = new Reports();
  const { session, launcher, tokens, log } = parts;
  const commands: Readonly<Record<string, () => unknown>> = {
    toggle,
    toggleLanguage,
    trigger: () => vscode.commands.executeCommand("editor.action.inlineSuggest.trigger"),
    showStatistics: () => showStatistics(session, reports),
    chooseModel: () => chooseModel(launcher.interpreter?.python, parts.home, log),
    downloadDefaultModel: () =>
      withLocalPython(launcher, "download a model for", (python) =>
        pullWithProgress(python, parts.home, config.serverSettings().pipArguments, log),
      ),
    acceptLeftToRight: () => config.acceptLeftToRight(),
    restart: () => restart(parts),
    clearPool: () => clearPool(session),
    showLog: () => log.show(),
    runDoctor: () => withLocalPython(launcher, "diagnose", (python) => runDoctor(python, parts.home, reports)),
    openSettings: () => vscode.commands.executeCommand("workbench.action.openSettings", "@ext:forelook.forelook"),
    showMenu: () => showMenu(session),
    install: () => launcher.installPrivately(),
    selectInterpreter: () => launcher.chooseInterpreter(),
    setServerToken: () => setServerToken(tokens),
    forgetServerToken: () => forgetServerToken(tokens),
    openWalkthrough: () => vscode.commands.executeCommand("workbench.action.openWalkthrough", "forelook.forelook#start"),
    tryIt,
  };
  return vscode.Disposable.from(
    reports,
    ...Object.entries(commands).map(([name, action]) => vscode.commands.registerCommand(`forelook.${name}`, action)),
  );
}

async function toggle(): Promise<void> {
  const on = await config.toggleEverywhere();
  vscode.window.setStatusBarMessage(`Forelook: suggestions are ${on ? "on" : "off"}`, 3000);
}

async function toggleLanguage(): Promise<void> {
  const languageId = vscode.window.activeTextEditor?.document.languageId;
  if (languageId === undefined) {
    void vscode.window.showInformationMessage("No file is open; open one in the language to switch.");
    return;
  }
  const on = await config.toggleLanguage(languageId);
  vscode.window.setStatusBarMessage(`Forelook: suggestions in ${languageId} are ${on ? "on" : "off"}`, 3000);
}

async function showStatistics(session: Session, reports: Reports): Promise<void> {
  if (!session.isRunning) {
    void vscode.window.showWarningMessage(NOT_RUNNING);
    return;
  }
  const statistics = await session.execute(config.serverCommand("stats"));
  await reports.show("Forelook statistics.md", statisticsPage(statistics as Parameters<typeof statisticsPage>[0]));
}

/** Restarts everything: the backend, which other windows share, and this window's language server. */
async function restart({ session, launcher }: Parts): Promise<void> {
  await session.execute(config.serverCommand("restartBackend"));
  await launcher.start();
}

async function clearPool(session: Session): Promise<void> {
  if (!session.isRunning) {
    void vscode.window.showWarningMessage(NOT_RUNNING);
    return;
  }
  const clear = "Clear";
  const question = "Clear what Forelook learned from this workspace?";
  const detail = "Suggestions stay the same but are slower until your files are indexed again.";
  if ((await vscode.window.showWarningMessage(question, { modal: true, detail }, clear)) === clear) {
    await session.execute(config.serverCommand("clearPool"));
    vscode.window.setStatusBarMessage("Forelook: the workspace's pool is empty", 3000);
  }
}

async function withLocalPython(
  launcher: Launcher,
  purpose: string,
  act: (python: string) => Promise<void>,
): Promise<void> {
  const python = launcher.interpreter?.python;
  if (python === undefined) {
    const why = "the server is not installed, or it is reached over websocket";
    void vscode.window.showWarningMessage(`No local server to ${purpose}: ${why}.`);
    return;
  }
  await act(python);
}

async function runDoctor(python: string, home: string, reports: Reports): Promise<void> {
  const progress = { location: vscode.ProgressLocation.Window, title: "Forelook doctor" };
  const lines: string[] = [];
  const finished = await vscode.window.withProgress(progress, () =>
    run(python, ["-m", "forelook", "doctor", ...config.modelArguments()], {
      cwd: home,
      signal: AbortSignal.timeout(DOCTOR_TIMEOUT_MS),
      onLine: (line) => lines.push(line),
    }),
  );
  const verdict = finished.code === 0 ? [] : ["", `The doctor exited with code ${finished.code ?? "none"}.`];
  await reports.show("Forelook doctor.txt", [...lines, ...verdict, ""].join("\n"));
}

async function showMenu(session: Session): Promise<void> {
  const languageId = vscode.window.activeTextEditor?.document.languageId;
  const everywhere = config.enabledEverywhere();
  const items: (vscode.QuickPickItem & { command?: string })[] = [
    { label: everywhere ? "$(debug-pause) Pause everywhere" : "$(play) Resume everywhere", command: "toggle" },
  ];
  if (languageId !== undefined && everywhere) {
    const on = config.enabledFor(languageId);
    const label = on ? `$(debug-pause) Pause in ${languageId}` : `$(play) Resume in ${languageId}`;
    items.push({ label, command: "toggleLanguage" });
  }
  items.push(
    { label: "$(sparkle) Suggest now", command: "trigger" },
    { label: "$(graph) Show statistics", command: "showStatistics" },
    { label: "$(server-environment) Choose model…", command: "chooseModel" },
    { label: "Server", kind: vscode.QuickPickItemKind.Separator },
    { label: "$(debug-restart) Restart", command: "restart" },
    { label: "$(trash) Clear what was learned from this workspace", command: "clearPool" },
    { label: "$(pulse) Run doctor", command: "runDoctor" },
    { label: "$(output) Show log", command: "showLog" },
    { label: "$(gear) Open settings", command: "openSettings" },
  );
  if (LeftToRightOffer.fits(session.state)) {
    items.unshift({ label: "$(arrow-right) Use this model left to right", command: "acceptLeftToRight" });
  } else if (session.state.kind === "missing") {
    items.unshift(
      { label: "$(cloud-download) Install the server in a private environment", command: "install" },
      { label: "$(folder-opened) Choose an interpreter with Forelook installed…", command: "selectInterpreter" },
    );
  } else if (session.state.kind === "untrusted") {
    const label = "$(shield) Manage workspace trust";
    items.unshift({ label, command: "workbench.trust.manage" });
  } else if (config.serverSettings().url !== undefined) {
    items.push({ label: "$(key) Set the server's token…", command: "setServerToken" });
  }
  if (lacksDefaultModel(session.state)) {
    items.unshift({ label: "$(cloud-download) Download the default model", command: "downloadDefaultModel" });
  }
  const state = session.state;
  const placeHolder = state.kind === "failed" || state.kind === "missing" ? state.message : "Forelook";
  const picked = await vscode.window.showQuickPick(items, { placeHolder });
  if (picked?.command !== undefined) {
    const command = picked.command.includes(".") ? picked.command : `forelook.${picked.command}`;
    await vscode.commands.executeCommand(command);
  }
}

async function setServerToken(tokens: Tokens): Promise<void> {
  const { url } = config.serverSettings();
  if (url === undefined) {
    void vscode.window.showInformationMessage("forelook.server.url is not set; set it first, because a token belongs to one server.");
    return;
  }
  const token = await vscode.window.showInputBox({
    title: `Token of ${url}`,
    prompt: "Stored in the system's secret storage and sent only to this server.",
    password: true,
    ignoreFocusOut: true,
    validateInput: (text) => (/^[\x21-\x7e]+$/.test(text.trim()) ? undefined : "A token is a single word of printable ASCII characters."),
  });
  if (token !== undefined) {
    await tokens.set(url, token.trim());
  }
}

async function forgetServerToken(tokens: Tokens): Promise<void> {
  const { url } = config.serverSettings();
  if (url !== undefined) {
    await tokens.forget(url);
    vscode.window.setStatusBarMessage("Forelook: the server's token was deleted", 3000);
  }
}

/** A new file with the beginning of a function, with the cursor where a suggestion appears. */
async function tryIt(): Promise<void> {
  const content = "def mean(values):\n    total = 0\n    for value in values:\n        ";
  const document = await vscode.workspace.openTextDocument({ language: "python", content });
  const editor = await vscode.window.showTextDocument(document);
  const end = document.positionAt(content.length);
  editor.selection = new vscode.Selection(end, end);
  await vscode.commands.executeCommand("editor.action.inlineSuggest.trigger");
}
