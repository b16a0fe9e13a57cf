/** Decides how to reach the language server, installs it on the first run and starts it. */

import * as vscode from "vscode";
import type { Session } from "./session";
import { serverSettings, setInterpreter } from "./config";
import { type Attempt, type Interpreter, InterpreterFinder, type Search } from "./interpreter";
import { install, InstallError } from "./install";
import type { Tokens } from "./tokens";
import { chooseTorchBuild } from "./torchBuild";
import { AddressError } from "./websocket";

const INSTALL = "Install";
const CHOOSE = "Choose Interpreter…";
const UPDATE = "Update";
const SHOW_LOG = "Show Log";
const SETTINGS = "Open Settings";
const TRUST = "Manage Workspace Trust";

export class Launcher {
  private readonly finder: InterpreterFinder;
  private readonly home: string;
  private asked = false;
  private numStarts = 0;

  constructor(
    private readonly context: vscode.ExtensionContext,
    private readonly session: Session,
    private readonly tokens: Tokens,
    private readonly log: vscode.LogOutputChannel,
  ) {
    this.home = context.globalStorageUri.fsPath;
    this.finder = new InterpreterFinder(this.home, log);
  }

  /** The interpreter found by the last search. */
  interpreter: Interpreter | undefined;

  /** Starts or connects to the language server according to the current settings. */
  async start(): Promise<void> {
    const start = ++this.numStarts;
    if (!vscode.workspace.isTrusted) {
      await this.session.stop({ kind: "untrusted" });
      return;
    }
    const { url, interpreter } = serverSettings();
    if (url !== undefined) {
      await this.startOverWebsocket(url, start);
      return;
    }
    const search = await this.finder.search(interpreter);
    if (start !== this.numStarts) {
      // The settings changed during the search; the later start wins.
      return;
    }
    this.interpreter = search.found;
    await this.serverFound(search.found !== undefined);
    if (start !== this.numStarts) {
      return;
    }
    if (!search.found) {
      this.logAttempts(search);
      await this.session.stop({ kind: "missing", message: explain(search) });
      this.offerSetUp(search);
      return;
    }
    const { python, origin, version } = search.found;
    this.log.info(`Forelook ${version} of ${python} (${origin})`);
    await this.session.start({ kind: "stdio", command: python, args: ["-m", "forelook_lsp"], cwd: this.home });
    this.offerUpdate(search.found);
  }

  private async startOverWebsocket(url: string, start: number): Promise<void> {
    try {
      const token = await this.tokens.get(url);
      if (start !== this.numStarts) {
        return;
      }
      await this.session.start({ kind: "websocket", url, token });
      await this.serverFound(true);
    } catch (error) {
      if (!(error instanceof AddressError)) {
        throw error;
      }
      await this.session.stop({ kind: "failed", message: error.message, retryInS: undefined });
    }
  }

  /** Creates the private environment, with progress, and starts from it. */
  async installPrivately(): Promise<void> {
    if (this.refusedForTrust()) {
      return;
    }
    const { pipArguments } = serverSettings();
    const build = await chooseTorchBuild(pipArguments);
    if (build === undefined) {
      return;
    }
    // An environment in use cannot be replaced: neither what runs nor a start under way may use it.
    this.numStarts += 1;
    await this.session.stop({ kind: "installing" });
    const installation = {
      extensionPath: this.context.extensionPath,
      version: this.ownVersion,
      torchIndex: build.torchIndex,
      pipArguments,
    };
    const title = "Forelook: installing the server";
    const progressOptions = { location: vscode.ProgressLocation.Notification, title, cancellable: true };
    const failure = await vscode.window.withProgress(progressOptions, async (progress, cancellation) => {
      const cancelled = new AbortController();
      cancellation.onCancellationRequested(() => cancelled.abort());
      try {
        const report = (doing: string): void => progress.report({ message: doing });
        await install(this.finder, installation, this.log, report, cancelled.signal);
        return undefined;
      } catch (error) {
        if (error instanceof InstallError) {
          return error.message;
        }
        if (cancelled.signal.aborted) {
          return undefined;
        }
        throw error;
      }
    });
    if (failure !== undefined) {
      this.log.error(failure);
      void this.showProblem(failure, [SHOW_LOG]);
    } else if (serverSettings().interpreter !== undefined) {
      // The setting would override the new environment.
      await setInterpreter(null);
    }
    await this.start();
  }

  async chooseInterpreter(): Promise<void> {
    if (this.refusedForTrust()) {
      return;
    }
    const picked = await vscode.window.showOpenDialog({
      title: "A Python interpreter with Forelook installed",
      openLabel: "Use This Interpreter",
      canSelectMany: false,
    });
    const python = picked?.[0]?.fsPath;
    if (python === undefined) {
      return;
    }
    const search = await this.finder.search(python);
    if (search.found) {
      await setInterpreter(python);
    } else {
      void this.showProblem(explain(search), [INSTALL, CHOOSE]);
    }
  }

  /** Whether workspace trust forbids starting programs; if so, says so. */
  private refusedForTrust(): boolean {
    if (!vscode.workspace.isTrusted) {
      void this.showProblem("Forelook does not start programs in untrusted workspaces.", [TRUST]);
    }
    return !vscode.workspace.isTrusted;
  }

  private get ownVersion(): string {
    return String((this.context.extension.packageJSON as { version: unknown }).version);
  }

  private async serverFound(found: boolean): Promise<void> {
    await vscode.commands.executeCommand("setContext", "forelook.serverFound", found);
  }

  /** Offers setup once per session; the status item keeps showing that the server is missing. */
  private offerSetUp(search: Search): void {
    if (!this.asked) {
      this.asked = true;
      void this.showProblem(explain(search), search.attempts[0]?.origin === "setting" ? [SETTINGS] : [INSTALL, CHOOSE]);
    }
  }

  private offerUpdate({ origin, version }: Interpreter): void {
    if (origin !== "private environment" || version === this.ownVersion || this.asked) {
      return;
    }
    this.asked = true;
    const message = `The private environment has Forelook ${version}; this extension needs ${this.ownVersion}.`;
    void vscode.window.showInformationMessage(message, UPDATE).then((answer) => this.act(answer));
  }

  private async showProblem(message: string, choices: readonly string[]): Promise<void> {
    await this.act(await vscode.window.showWarningMessage(message, ...choices));
  }

  private async act(answer: string | undefined): Promise<void> {
    if (answer === INSTALL || answer === UPDATE) {
      await this.installPrivately();
    } else if (answer === CHOOSE) {
      await this.chooseInterpreter();
    } else if (answer === SHOW_LOG) {
      this.log.show();
    } else if (answer === TRUST) {
      await vscode.commands.executeCommand("workbench.trust.manage");
    } else if (answer === SETTINGS) {
      await vscode.commands.executeCommand("workbench.action.openSettings", "forelook.server");
    }
  }

  private logAttempts({ attempts }: Search): void {
    for (const { python, origin, outcome } of attempts) {
      this.log.info(`Looked at ${python} (${origin}): ${outcome}`);
    }
  }
}

/** Explains what is missing to a reader who may never have used Python. */
export function explain({ attempts }: Search): string {
  const fromSetting = attempts.find(({ origin }) => origin === "setting");
  if (fromSetting) {
    return `forelook.server.interpreter is ${fromSetting.python}: ${inWords(fromSetting)}.`;
  }
  const usable = attempts.some(({ outcome }) => outcome === "without Forelook");
  return usable
    ? "Forelook's server is not installed. Install puts it into a private environment and changes nothing else."
    : "Python 3.10 or newer was not found; install Python, then choose Install.";
}

function inWords({ outcome }: Attempt): string {
  switch (outcome) {
    case "no such program":
      return "not a working Python";
    case "Python is too old":
      return "Python is older than 3.10";
    case "without Forelook":
      return "Forelook is not installed in it";
  }
}
