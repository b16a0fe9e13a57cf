/** A private place to run a real VS Code in: its folders, code-server, a browser, and their end. */

import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { createWriteStream } from "node:fs";
import { chmod, cp, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { homedir, tmpdir } from "node:os";
import path from "node:path";
import { type Browser, chromium, type Page } from "playwright-core";
import { eventually } from "./eventually.ts";
import { EditorWindow } from "./window.ts";

const HERE = import.meta.dirname;
export const REPOSITORY = path.dirname(path.dirname(HERE));
const CODE_SERVER = "node_modules/code-server/out/node/entry.js";
const VSCODE = "node_modules/code-server/lib/vscode";
const MEASURED = "measured";
const BROWSERS = ["/usr/bin/chromium", "/usr/bin/google-chrome"];

/** What every run has switched off so that nothing but Forelook draws in the editor, or talks to a network. */
const QUIET_SETTINGS = {
  "chat.disableAIFeatures": true,
  "telemetry.telemetryLevel": "off",
  "workbench.startupEditor": "none",
  "workbench.enableExperiments": false,
  "extensions.autoUpdate": false,
  "extensions.autoCheckUpdates": false,
  "extensions.ignoreRecommendations": true,
  "update.mode": "none",
  "git.enabled": false,
  "editor.quickSuggestions": { other: "off", comments: "off", strings: "off" },
  "editor.suggestOnTriggerCharacters": false,
  "editor.parameterHints.enabled": false,
  "workbench.editor.useModal": "off",
  "workbench.secondarySideBar.defaultVisibility": "hidden",
  "editor.hover.enabled": "off",
  "editor.minimap.enabled": false,
  "editor.stickyScroll.enabled": false,
  "editor.occurrencesHighlight": "off",
  "editor.cursorBlinking": "solid",
  "files.hotExit": "off",
  // What is typed here has each quote and bracket already.
  "editor.autoClosingBrackets": "never",
  "editor.autoClosingQuotes": "never",
  "files.autoSave": "off",
  "window.confirmBeforeClose": "never",
  "security.workspace.trust.untrustedFiles": "open",
};

/** Long, so that a suggestion comes on a busy machine too, and shown however unsure the model is of it; both have tests of their own. */
const SHOWN = { "forelook.deadlineMs": 10_000, "forelook.confidence": "off" };

const KEYBINDINGS = [{ key: "ctrl+alt+l", command: "editor.action.inlineSuggest.acceptNextLine", when: "inlineSuggestionVisible" }];

export type Settings = Readonly<Record<string, unknown>>;

export interface LabOptions {
  /** For the folder of screenshots and logs. */
  readonly name: string;
  /** The user's settings, over the quiet ones. */
  readonly settings?: Settings;
  /** The machine's settings, instead of the one that names this checkout's interpreter. */
  readonly machineSettings?: Settings;
  readonly workspaceTrust?: boolean;
  /** Variables of the environment, over the private ones. */
  readonly environment?: Readonly<Record<string, string>>;
  /** code-server with the packed extension installed, or VS Code's own server with its test driver and none. */
  readonly server?: "code-server" | "vscode";
  /** Lends the user's downloaded models, so that the default model runs where `make model` was run; else the bundled one does. */
  readonly lendsModels?: boolean;
}

export interface OpenOptions {
  /** A folder or a `.code-workspace` file; the lab's own folder where left out. */
  readonly workspace?: string;
  readonly viewport?: { readonly width: number; readonly height: number };
  readonly payload?: readonly (readonly [string, string])[];
  readonly beforeLoad?: (page: Page) => Promise<void>;
}

export class Lab {
  private readonly processes: ChildProcess[] = [];
  private readonly windows: EditorWindow[] = [];

  /** Short, for socket paths; holds everything that this run writes. */
  readonly folder: string;
  readonly artifacts: string;
  readonly environment: Readonly<Record<string, string>>;
  readonly port: number;
  private readonly browser: Browser;

  private constructor(folder: string, artifacts: string, environment: Record<string, string>, port: number, browser: Browser) {
    this.folder = folder;
    this.artifacts = artifacts;
    this.environment = environment;
    this.port = port;
    this.browser = browser;
  }

  /** The interpreter of this checkout, which has Forelook. */
  static get python(): string {
    return process.env["PYTHON"] ?? path.join(REPOSITORY, ".venv", "bin", "python");
  }

  get workspace(): string {
    return path.join(this.folder, "workspace");
  }

  get settingsFile(): string {
    return path.join(this.folder, "user", "User", "settings.json");
  }

  static async start(options: LabOptions): Promise<Lab> {
    const rig = need("FORELOOK_E2E_FOLDER");
    const folder = await mkdtemp(path.join(tmpdir(), "flcode-"));
    const artifacts = path.join(need("FORELOOK_E2E_ARTIFACTS"), options.name);
    await rm(artifacts, { recursive: true, force: true });
    await mkdir(artifacts, { recursive: true });
    const environment = { ...privateEnvironment(folder), ...options.environment };
    for (const name of ["HOME", "TMPDIR", "XDG_RUNTIME_DIR"]) {
      await mkdir(environment[name] as string, { recursive: true });
      await chmod(environment[name] as string, 0o700);
    }
    const browser = await chromium.launch({
      executablePath: await firstThatExists(BROWSERS),
      args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
    });
    const lab = new Lab(folder, artifacts, environment, await freePort(), browser);
    for (const signal of ["SIGINT", "SIGTERM"] as const) {
      process.once(signal, () => void lab.stop().finally(() => process.exit(1)));
    }
    try {
      const isSource = (file: string): boolean => !file.includes("__pycache__");
      await cp(path.join(HERE, "workspace"), lab.workspace, { recursive: true, filter: isSource });
      await lab.copyMeasurements(path.join(rig, MEASURED), lab.backendCache);
      if (options.lendsModels) {
        await lab.lendModels();
      }
      await lab.writeSettings(options.settings ?? {}, options.machineSettings ?? Lab.machineSettings);
      await writeFile(path.join(folder, "user", "User", "keybindings.json"), JSON.stringify(KEYBINDINGS));
      await writeFile(path.join(folder, "config.yaml"), "cert: false\n");
      if (options.server === "vscode") {
        await lab.startServer(path.join(rig, VSCODE, "out/server-main.js"), lab.vscodeArguments());
      } else {
        lab.installExtension(rig);
        await lab.startServer(path.join(rig, CODE_SERVER), lab.codeServerArguments(options.workspaceTrust ?? false));
      }
    } catch (error) {
      await lab.stop();
      throw error;
    }
    return lab;
  }

  private get backendCache(): string {
    return path.join(this.environment["XDG_CACHE_HOME"] as string, "forelook");
  }

  /** What the backend measured of this machine takes half a minute, and is the same for all labs of a run. */
  private async copyMeasurements(from: string, to: string): Promise<void> {
    const names = await readdir(from).catch(() => []);
    await mkdir(to, { recursive: true, mode: 0o700 });
    for (const name of names.filter((name) => /^(step-costs|successors)-/.test(name))) {
      await cp(path.join(from, name), path.join(to, name));
    }
  }

  private async lendModels(): Promise<void> {
    const state = process.env["XDG_STATE_HOME"] || path.join(homedir(), ".local", "state");
    const folder = path.join(this.environment["XDG_STATE_HOME"] as string, "forelook");
    await mkdir(folder, { recursive: true, mode: 0o700 });
    await symlink(path.join(state, "forelook", "models"), path.join(folder, "models"));
  }

  /** The machine's settings that name this checkout's interpreter, and nothing else. */
  static get machineSettings(): Settings {
    return { "forelook.server.interpreter": Lab.python };
  }

  /** Writes the settings files; windows opened later read them, those that are open change them by `editSettings`. */
  async writeSettings(user: Settings, machine: Settings): Promise<void> {
    // code-server and VS Code's own server keep the machine's settings in different places.
    for (const [file, settings] of [
      [this.settingsFile, { ...QUIET_SETTINGS, ...SHOWN, ...user }],
      [path.join(this.folder, "user", "Machine", "settings.json"), machine],
      [path.join(this.folder, "user", "data", "Machine", "settings.json"), { ...QUIET_SETTINGS, ...SHOWN, ...user, ...machine }],
    ] as const) {
      await mkdir(path.dirname(file), { recursive: true });
      await writeFile(file, JSON.stringify(settings, null, 2));
    }
  }

  /** A path as the browser's VS Code names it. */
  uri(file: string): string {
    return `vscode-remote://127.0.0.1:${this.port}${file}`;
  }

  /** Opens a window of its own: another extension host, another language server. */
  async open(file: string | undefined, options: OpenOptions = {}): Promise<EditorWindow> {
    const context = await this.browser.newContext({ viewport: options.viewport ?? { width: 1000, height: 640 } });
    const page = await context.newPage();
    page.setDefaultTimeout(20_000);
    const window = new EditorWindow(page, this.workspace, this.artifacts);
    this.windows.push(window);
    await options.beforeLoad?.(page);
    const opened = options.workspace ?? this.workspace;
    const query = new URLSearchParams({ [opened.endsWith(".code-workspace") ? "workspace" : "folder"]: opened });
    const openFile = file === undefined ? [] : [["openFile", this.uri(path.join(this.workspace, file))]];
    query.set("payload", JSON.stringify([...openFile, ...(options.payload ?? [])]));
    await page.goto(`http://127.0.0.1:${this.port}/?${query}`);
    return window;
  }

  /** Writes a file of the workspace: a copy of `shop.py`, and what else should stand in it. */
  async write(name: string, further: string, change: (text: string) => string = (text) => text): Promise<void> {
    const shop = await readFile(path.join(this.workspace, "shop.py"), "utf8");
    await writeFile(path.join(this.workspace, name), change(shop + further));
  }

  /** Starts a process that ends with the lab. */
  spawn(name: string, command: string, args: readonly string[], environment: Readonly<Record<string, string>> = {}): ChildProcess {
    const child = spawn(command, args, {
      env: { ...this.environment, ...environment },
      cwd: this.folder,
      stdio: ["ignore", "pipe", "pipe"],
    });
    const log = createWriteStream(path.join(this.artifacts, `${name}.log`));
    child.stdout.pipe(log, { end: false });
    child.stderr.pipe(log, { end: false });
    this.processes.push(child);
    return child;
  }

  /** Runs the `forelook` command in this lab's environment. */
  forelook(...args: string[]): string {
    const finished = spawnSync(Lab.python, ["-m", "forelook", ...args], {
      env: this.environment,
      cwd: this.folder,
      encoding: "utf8",
      timeout: 60_000,
    });
    return finished.stdout;
  }

  /** Process ids of this lab's processes whose command line has `text`. */
  async processIds(text: string): Promise<number[]> {
    const found: number[] = [];
    for (const id of (await readdir("/proc")).filter((name) => /^\d+$/.test(name))) {
      try {
        const command = await this.commandLine(Number(id));
        if (command.includes(text) && (await readFile(`/proc/${id}/environ`, "utf8")).includes(`HOME=${this.folder}/`)) {
          found.push(Number(id));
        }
      } catch {
        // It ended while it was looked at, or is another user's.
      }
    }
    return found;
  }

  async commandLine(id: number): Promise<string> {
    return (await readFile(`/proc/${id}/cmdline`, "utf8")).replaceAll("\0", " ");
  }

  /** The extension's private environment, where there is one. */
  async privateEnvironment(): Promise<string | undefined> {
    const folder = path.join(this.folder, "user", "User", "globalStorage", "forelook.forelook", "environment");
    return readdir(folder).then(() => folder, () => undefined);
  }

  backendIds(): Promise<number[]> {
    return this.processIds("-m forelook serve");
  }

  languageServerIds(): Promise<number[]> {
    return this.processIds("forelook_lsp");
  }

  /** Ends everything that was started here, and tells what did not end by itself. */
  async stop(): Promise<void> {
    for (const window of this.windows) {
      await window.close();
    }
    await this.browser.close();
    this.forelook("stop");
    for (const child of this.processes.reverse()) {
      await end(child);
    }
    await this.keepLogs();
    await this.copyMeasurements(this.backendCache, path.join(need("FORELOOK_E2E_FOLDER"), MEASURED));
    for (const id of await this.processIds("")) {
      process.kill(id, "SIGKILL");
    }
    await rm(this.folder, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
  }

  private installExtension(rig: string): void {
    const install = ["--install-extension", path.join(rig, "forelook.vsix")];
    const finished = spawnSync(process.execPath, [path.join(rig, CODE_SERVER), ...this.folders(), ...install], {
      env: this.environment,
      encoding: "utf8",
      timeout: 120_000,
    });
    if (finished.status !== 0) {
      throw new Error(`the extension could not be installed: ${finished.stdout}${finished.stderr}`);
    }
  }

  private async startServer(script: string, args: readonly string[]): Promise<void> {
    const server = this.spawn("server", process.execPath, [script, ...args]);
    await eventually("the server answers", async () => {
      if (server.exitCode !== null) {
        throw new Error(`the server ended with ${server.exitCode}; see server.log`);
      }
      const answer = await fetch(`http://127.0.0.1:${this.port}/`).catch(() => undefined);
      return answer?.ok === true;
    });
  }

  private folders(): string[] {
    return [
      `--user-data-dir=${this.folder}/user`,
      `--extensions-dir=${this.folder}/extensions`,
      `--config=${this.folder}/config.yaml`,
    ];
  }

  private codeServerArguments(workspaceTrust: boolean): string[] {
    return [
      ...this.folders(),
      "--auth=none",
      `--bind-addr=127.0.0.1:${this.port}`,
      "--disable-telemetry",
      "--disable-update-check",
      "--disable-getting-started-override",
      ...(workspaceTrust ? [] : ["--disable-workspace-trust"]),
    ];
  }

  private vscodeArguments(): string[] {
    return [
      "--host=127.0.0.1",
      `--port=${this.port}`,
      "--without-connection-token",
      "--accept-server-license-terms",
      "--enable-smoke-test-driver",
      "--disable-workspace-trust",
      `--server-data-dir=${this.folder}/user`,
      `--extensions-dir=${this.folder}/extensions`,
    ];
  }

  /** The extension's log, where code-server writes log files, and the backend's, which tell most when a test fails. */
  private async keepLogs(): Promise<void> {
    for (const place of ["user/logs", "home"]) {
      const files = await readdir(path.join(this.folder, place), { recursive: true }).catch(() => []);
      for (const file of files.filter((name) => /forelook.*\.log$/i.test(name))) {
        const text = await readFile(path.join(this.folder, place, file), "utf8").catch(() => "");
        await writeFile(path.join(this.artifacts, file.replaceAll("/", "_")), text);
      }
    }
  }
}

function privateEnvironment(folder: string): Record<string, string> {
  const home = path.join(folder, "home");
  return {
    PATH: process.env["PATH"] ?? "",
    LANG: "C.UTF-8",
    HOME: home,
    TMPDIR: path.join(folder, "tmp"),
    XDG_RUNTIME_DIR: path.join(folder, "runtime"),
    XDG_CONFIG_HOME: path.join(home, ".config"),
    XDG_CACHE_HOME: path.join(home, ".cache"),
    XDG_DATA_HOME: path.join(home, ".local", "share"),
    XDG_STATE_HOME: path.join(home, ".local", "state"),
  };
}

function need(name: string): string {
  const value = process.env[name];
  if (!value) {
    throw new Error(`${name} is not set: run the tests by run.sh`);
  }
  return value;
}

async function firstThatExists(files: readonly string[]): Promise<string> {
  for (const file of files) {
    if (await readFile(file).then(() => true, () => false)) {
      return file;
    }
  }
  throw new Error(`none of ${files.join(", ")} is there: run setup.sh`);
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  await once(server, "close");
  if (typeof address !== "object" || address === null) {
    throw new Error("no free port");
  }
  return address.port;
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) {
    return;
  }
  const ended = once(child, "exit");
  child.kill("SIGTERM");
  const timer = setTimeout(() => child.kill("SIGKILL"), 8_000);
  await ended;
  clearTimeout(timer);
}
