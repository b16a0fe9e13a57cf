/** Supervises one language server: starts or connects to it, detects its exit and restarts it. */

import * as vscode from "vscode";
import {
  CloseAction,
  type DocumentSelector,
  ErrorAction,
  LanguageClient,
  type LanguageClientOptions,
} from "vscode-languageclient/node";
import { forwardedSettings, SECTION } from "./config";
import { type Ended, type Link, linkFor, type Transport } from "./links";
import { type Connection, parseStatus } from "./status";
import { keepSurrogatesOut } from "./surrogates";

const SELECTOR: DocumentSelector = [
  { scheme: "file" },
  { scheme: "untitled" },
  { scheme: "vscode-notebook-cell" },
  { scheme: "vscode-vfs" },
];

const FIRST_DELAY_MS = 1_000;
const LONGEST_DELAY_MS = 30_000;
/** A server that ran this long is not in a crash loop; the backoff is reset. */
const STEADY_MS = 60_000;
const STOP_TIMEOUT_MS = 3_000;

/** Supervises the language server of this window. */
export class Session implements vscode.Disposable {
  private readonly changed = new vscode.EventEmitter<Connection>();
  readonly onDidChange = this.changed.event;

  private connection: Connection = { kind: "stopped" };
  private client: LanguageClient | undefined;
  private stopping = new AbortController();
  private running: Promise<void> = Promise.resolve();
  private turn: Promise<void> = Promise.resolve();

  constructor(private readonly log: vscode.LogOutputChannel) {}

  get state(): Connection {
    return this.connection;
  }

  /** Starts a language server and keeps it running; stops a running one first. */
  start(transport: Transport): Promise<void> {
    return this.inTurn(async () => {
      await this.end();
      this.stopping = new AbortController();
      this.running = this.keepRunning(transport, this.stopping.signal);
    });
  }

  /** Stops the language server; `connection` is the state to show afterwards. */
  stop(connection: Connection = { kind: "stopped" }): Promise<void> {
    return this.inTurn(async () => {
      await this.end();
      this.show(connection);
    });
  }

  dispose(): void {
    void this.stop().finally(() => this.changed.dispose());
  }

  /** Sends the current settings to the language server. */
  async sendSettings(): Promise<void> {
    if (this.client?.isRunning()) {
      await this.client.sendNotification("workspace/didChangeConfiguration", {
        settings: { [SECTION]: forwardedSettings() },
      });
    }
  }

  /** Tells the language server where the cursor rests, so that it can prepare for a request there. */
  async reportCursor(document: vscode.TextDocument, position: vscode.Position): Promise<void> {
    if (this.client?.isRunning() && vscode.languages.match(SELECTOR as vscode.DocumentSelector, document) > 0) {
      await this.client.sendNotification(`${SECTION}/didMoveCursor`, {
        textDocument: { uri: this.client.code2ProtocolConverter.asUri(document.uri) },
        position: { line: position.line, character: position.character },
      });
    }
  }

  /** Runs a command of the language server; `undefined` while there is no server. */
  async execute(command: string, args: readonly unknown[] = []): Promise<unknown> {
    if (!this.client?.isRunning()) {
      return undefined;
    }
    return this.client.sendRequest<unknown>("workspace/executeCommand", { command, arguments: args });
  }

  get isRunning(): boolean {
    return this.client?.isRunning() ?? false;
  }

  /** Serializes starts and stops, so there are never two servers. */
  private inTurn(work: () => Promise<void>): Promise<void> {
    this.turn = this.turn.then(work);
    return this.turn;
  }

  private async end(): Promise<void> {
    this.stopping.abort();
    await this.running;
  }

  private show(connection: Connection): void {
    this.connection = connection;
    this.changed.fire(connection);
  }

  private async keepRunning(transport: Transport, signal: AbortSignal): Promise<void> {
    let delayMs = FIRST_DELAY_MS;
    while (!signal.aborted) {
      const begun = Date.now();
      const why = await this.runOnce(transport, signal);
      if (signal.aborted) {
        return;
      }
      this.log.error(why.message);
      if (!why.isRetryable) {
        this.show({ kind: "failed", message: why.message, retryInS: undefined });
        return;
      }
      delayMs = Date.now() - begun > STEADY_MS ? FIRST_DELAY_MS : delayMs;
      this.show({ kind: "failed", message: why.message, retryInS: Math.round(delayMs / 1000) });
      await delay(delayMs, signal);
      delayMs = Math.min(delayMs * 2, LONGEST_DELAY_MS);
    }
  }

  /** Starts a client and waits until its connection closes or `signal` is aborted. */
  private async runOnce(transport: Transport, signal: AbortSignal): Promise<Ended> {
    const link = linkFor(transport, this.log);
    this.show({ kind: "starting", message: `${transport.kind === "stdio" ? "Starting" : "Connecting to"} ${link.where}` });
    let client: LanguageClient | undefined;
    let problem: unknown;
    try {
      // Opened before the client exists: the client would report a failure in a pop-up over the code.
      const opened = await link.open(signal);
      const closed = new Closed();
      client = new LanguageClient(SECTION, "Forelook", () => Promise.resolve(opened), this.clientOptions(closed));
      client.onNotification(`${SECTION}/status`, (params: unknown) => this.receiveStatus(params));
      await untilFirst(client.start(), closed.wait(signal));
      if (client.isRunning()) {
        this.client = client;
        if (this.connection.kind !== "running") {
          this.show({ kind: "running", status: undefined });
        }
        await closed.wait(signal);
      }
    } catch (error) {
      problem = error;
    } finally {
      this.client = undefined;
      await this.close(client, link);
    }
    return link.why(problem);
  }

  private receiveStatus(params: unknown): void {
    const status = parseStatus(params);
    if (status) {
      this.show({ kind: "running", status });
    } else {
      this.log.warn("Cannot read the language server's status; check that the extension and the server have the same version.");
    }
  }

  private async close(client: LanguageClient | undefined, link: Link): Promise<void> {
    try {
      await client?.dispose(STOP_TIMEOUT_MS);
    } catch (error) {
      // `dispose` rejects for a client that never ran; closing the link ends the server anyway.
      this.log.debug(`The language client was not running when stopped: ${String(error)}`);
    }
    await link.close();
  }

  private clientOptions(closed: Closed): LanguageClientOptions {
    return {
      documentSelector: SELECTOR,
      outputChannel: this.log,
      initializationOptions: forwardedSettings(),
      // The status item shows the error; no notification pops up over the code.
      initializationFailedHandler: () => false,
      errorHandler: {
        error: () => ({ action: ErrorAction.Continue, handled: true }),
        closed: () => {
          closed.resolve();
          return { action: CloseAction.DoNotRestart, handled: true };
        },
      },
      middleware: {
        provideInlineCompletionItems: async (document, position, context, token, next) => {
          const answer = await next(document, position, context, token);
          const items = Array.isArray(answer) ? answer : (answer?.items ?? []);
          items.forEach((item) => keepSurrogatesOut(item, document, position));
          return answer;
        },
        workspace: {
          configuration: (params) => params.items.map((item) => (item.section === SECTION ? forwardedSettings() : null)),
          // `sendSettings` sends the settings without the extension's own.
          didChangeConfiguration: () => Promise.resolve(),
        },
      },
    };
  }
}

/** Resolved by the client's close handler. */
class Closed {
  private readonly controller = new AbortController();

  resolve(): void {
    this.controller.abort();
  }

  /** Waits until the connection closes or `signal` is aborted. */
  wait(signal: AbortSignal): Promise<void> {
    const either = AbortSignal.any([this.controller.signal, signal]);
    return new Promise((resolve) => {
      either.addEventListener("abort", () => resolve(), { once: true });
      if (either.aborted) {
        resolve();
      }
    });
  }
}

/** Waits for either; ignores a later failure of `first`. */
async function untilFirst(first: Promise<void>, second: Promise<void>): Promise<void> {
  first.catch(() => undefined);
  await Promise.race([first, second]);
}

async function delay(milliseconds: number, signal: AbortSignal): Promise<void> {
  await new Promise<void>((resolve) => {
    const timer = setTimeout(done, milliseconds);
    function done(): void {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    }
    signal.addEventListener("abort", done, { once: true });
    if (signal.aborted) {
      done();
    }
  });
}

