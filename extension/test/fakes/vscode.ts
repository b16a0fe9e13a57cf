/** The part of VS Code's API that the extension uses, in memory. Tests set `fake` and read what was done to it. */

export enum ConfigurationTarget {
  Global = 1,
  Workspace = 2,
}
export enum StatusBarAlignment {
  Left = 1,
  Right = 2,
}
export enum ProgressLocation {
  Window = 10,
  Notification = 15,
}
export enum QuickPickItemKind {
  Separator = -1,
  Default = 0,
}

export class Disposable {
  constructor(private readonly callback: () => void) {}
  static from(...items: { dispose(): unknown }[]): Disposable {
    return new Disposable(() => items.forEach((item) => item.dispose()));
  }
  dispose(): void {
    this.callback();
  }
}

export class EventEmitter<T> {
  private readonly listeners = new Set<(value: T) => unknown>();
  readonly event = (listener: (value: T) => unknown): Disposable => {
    this.listeners.add(listener);
    return new Disposable(() => this.listeners.delete(listener));
  };
  fire(value: T): void {
    this.listeners.forEach((listener) => listener(value));
  }
  dispose(): void {
    this.listeners.clear();
  }
}

export class ThemeColor {
  constructor(readonly id: string) {}
}
export class MarkdownString {
  constructor(readonly value: string) {}
}
export class Selection {
  constructor(
    readonly anchor: unknown,
    readonly active: unknown,
  ) {}
}
export class Uri {
  private constructor(
    readonly scheme: string,
    readonly path: string,
  ) {}
  static file(path: string): Uri {
    return new Uri("file", path);
  }
  static from(parts: { scheme: string; path: string }): Uri {
    return new Uri(parts.scheme, parts.path);
  }
  get fsPath(): string {
    return this.path;
  }
  toString(): string {
    return `${this.scheme}://${this.path}`;
  }
}

export interface FakeItem {
  text: string;
  tooltip: MarkdownString | undefined;
  backgroundColor: ThemeColor | undefined;
}

/** The state of the fake; `reset` before each test. */
class Fake {
  defaults = new Map<string, unknown>();
  settings = new Map<ConfigurationTarget, Map<string, unknown>>();
  isTrusted = true;
  languageId: string | undefined;
  /** Answers to prompts, in order; `undefined` once there are none. */
  answers: (string | undefined)[] = [];
  prompts: string[] = [];
  /** What the last quick pick offered. */
  offered: string[] = [];
  executed: { command: string; args: unknown[] }[] = [];
  commands = new Map<string, (...args: unknown[]) => unknown>();
  items: FakeItem[] = [];
  extensions = new Map<string, unknown>();
  inputs: (string | undefined)[] = [];
  readonly configurationChanged = new EventEmitter<{ affectsConfiguration(section: string): boolean }>();
  readonly trustGranted = new EventEmitter<void>();
  readonly editorChanged = new EventEmitter<unknown>();
  readonly selectionChanged = new EventEmitter<unknown>();

  reset(): void {
    this.defaults = new Map();
    this.settings = new Map();
    this.isTrusted = true;
    this.languageId = undefined;
    this.answers = [];
    this.prompts = [];
    this.offered = [];
    this.executed = [];
    this.commands = new Map();
    this.items = [];
    this.extensions = new Map();
    this.inputs = [];
  }

  set(name: string, value: unknown, target = ConfigurationTarget.Global): void {
    const values = this.settings.get(target) ?? new Map<string, unknown>();
    this.settings.set(target, values);
    if (value === undefined) {
      values.delete(name);
    } else {
      values.set(name, value);
    }
    this.configurationChanged.fire({
      affectsConfiguration: (section) => name === section || name.startsWith(`${section}.`),
    });
  }

  value(name: string): unknown {
    for (const target of [ConfigurationTarget.Workspace, ConfigurationTarget.Global]) {
      if (this.settings.get(target)?.has(name)) {
        return this.settings.get(target)?.get(name);
      }
    }
    return this.defaults.get(name);
  }

  /** All settings under `section`, groups nested, as VS Code gives them. */
  tree(section: string): unknown {
    const names = [this.defaults, ...this.settings.values()].flatMap((values) => [...values.keys()]);
    const tree: Record<string, unknown> = {};
    for (const name of names.filter((name) => name.startsWith(`${section}.`))) {
      const parts = name.slice(section.length + 1).split(".");
      let node = tree;
      for (const part of parts.slice(0, -1)) {
        node = (node[part] ??= {}) as Record<string, unknown>;
      }
      node[parts.at(-1) as string] = this.value(name);
    }
    return tree;
  }
}
export const fake = new Fake();

export const workspace = {
  get isTrusted(): boolean {
    return fake.isTrusted;
  },
  workspaceFolders: undefined as { uri: Uri }[] | undefined,
  onDidChangeConfiguration: fake.configurationChanged.event,
  onDidGrantWorkspaceTrust: fake.trustGranted.event,
  registerTextDocumentContentProvider: (): Disposable => new Disposable(() => undefined),
  getConfiguration(section?: string) {
    const full = (name: string): string => (section ? `${section}.${name}` : name);
    return {
      get: (name: string, otherwise?: unknown): unknown =>
        section === undefined ? fake.tree(name) : (fake.value(full(name)) ?? otherwise),
      update: (name: string, value: unknown, target: ConfigurationTarget): Promise<void> => {
        fake.set(full(name), value, target);
        return Promise.resolve();
      },
      inspect: (name: string) => ({
        workspaceValue: fake.settings.get(ConfigurationTarget.Workspace)?.get(full(name)),
        globalValue: fake.settings.get(ConfigurationTarget.Global)?.get(full(name)),
      }),
    };
  },
};

function prompt(message: string): Promise<string | undefined> {
  fake.prompts.push(message);
  return Promise.resolve(fake.answers.shift());
}

export const window = {
  get activeTextEditor() {
    return fake.languageId === undefined ? undefined : { document: { languageId: fake.languageId } };
  },
  onDidChangeActiveTextEditor: fake.editorChanged.event,
  onDidChangeTextEditorSelection: fake.selectionChanged.event,
  createStatusBarItem(): FakeItem & { show(): void; dispose(): void } {
    const item = { text: "", tooltip: undefined, backgroundColor: undefined, show: () => undefined, dispose: () => undefined };
    fake.items.push(item);
    return item;
  },
  createOutputChannel: () => log(),
  setStatusBarMessage: prompt,
  showInformationMessage: prompt,
  showWarningMessage: prompt,
  showInputBox: (): Promise<string | undefined> => Promise.resolve(fake.inputs.shift()),
  showQuickPick: <T extends { label: string }>(items: T[]): Promise<T | undefined> => {
    const answer = fake.answers.shift();
    fake.offered = items.map(({ label }) => label);
    return Promise.resolve(items.find((item) => answer !== undefined && item.label.includes(answer)));
  },
  showOpenDialog: (): Promise<Uri[] | undefined> => {
    const answer = fake.answers.shift();
    return Promise.resolve(answer === undefined ? undefined : [Uri.file(answer)]);
  },
  showTextDocument: (): Promise<void> => Promise.resolve(),
  withProgress: <T>(_: unknown, work: (progress: unknown, token: unknown) => Promise<T>): Promise<T> =>
    work({ report: () => undefined }, { onCancellationRequested: () => undefined }),
};

export const commands = {
  registerCommand(command: string, action: (...args: unknown[]) => unknown): Disposable {
    if (fake.commands.has(command)) {
      throw new Error(`command '${command}' already exists`);
    }
    fake.commands.set(command, action);
    return new Disposable(() => fake.commands.delete(command));
  },
  async executeCommand(command: string, ...args: unknown[]): Promise<unknown> {
    fake.executed.push({ command, args });
    return fake.commands.get(command)?.(...args);
  },
};

export const languages = {
  match: (selector: readonly { scheme: string }[], document: { uri: { scheme: string } }): number =>
    selector.some(({ scheme }) => scheme === document.uri.scheme) ? 10 : 0,
};

export const extensions = { getExtension: (id: string): unknown => fake.extensions.get(id) };

export interface FakeLog {
  readonly lines: string[];
  info(line: string): void;
  warn(line: string): void;
  error(line: string): void;
  debug(line: string): void;
  show(): void;
  dispose(): void;
}

/** A log channel that keeps its lines. */
export function log(): FakeLog {
  const lines: string[] = [];
  const add = (line: string): void => void lines.push(line);
  return { lines, info: add, warn: add, error: add, debug: add, show: () => undefined, dispose: () => undefined };
}
