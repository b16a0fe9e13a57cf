/** `vscode-languageclient/node` with a client whose server does what a test says. */

export enum CloseAction {
  DoNotRestart = 1,
  Restart = 2,
}
export enum ErrorAction {
  Continue = 1,
  Shutdown = 2,
}

interface Options {
  readonly initializationOptions: unknown;
  readonly errorHandler: { closed(): unknown };
  readonly middleware: { workspace: { configuration(params: { items: { section?: string }[] }): unknown[] } };
}

/** What the next clients do, and the clients there were. */
export const servers = {
  clients: [] as LanguageClient[],
  /** How many starts fail before one succeeds. */
  failures: 0,
  /** Starts wait for ever: a server that never answers `initialize`. */
  hang: false,
  reset(): void {
    this.clients = [];
    this.failures = 0;
    this.hang = false;
  },
  get numRunning(): number {
    return this.clients.filter((client) => client.isRunning()).length;
  },
};

export class LanguageClient {
  private running = false;
  private readonly handlers = new Map<string, (params: unknown) => void>();
  readonly sent: { method: string; params: unknown }[] = [];

  constructor(
    readonly id: string,
    readonly name: string,
    private readonly open: () => Promise<unknown>,
    readonly options: Options,
  ) {
    servers.clients.push(this);
  }

  async start(): Promise<void> {
    await this.open();
    if (servers.hang) {
      await new Promise(() => undefined);
    }
    if (servers.failures > 0) {
      servers.failures -= 1;
      throw new Error("the server did not answer");
    }
    this.running = true;
  }

  isRunning(): boolean {
    return this.running;
  }

  onNotification(method: string, handler: (params: unknown) => void): void {
    this.handlers.set(method, handler);
  }

  notify(method: string, params: unknown): void {
    this.handlers.get(method)?.(params);
  }

  readonly code2ProtocolConverter = { asUri: (uri: { toString(): string }): string => uri.toString() };

  async sendNotification(method: string, params: unknown): Promise<void> {
    this.sent.push({ method, params });
  }

  async sendRequest(method: string, params: unknown): Promise<unknown> {
    this.sent.push({ method, params });
    return { answered: true };
  }

  /** The server goes away by itself. */
  crash(): void {
    this.running = false;
    this.options.errorHandler.closed();
  }

  async dispose(): Promise<void> {
    this.running = false;
  }
}
