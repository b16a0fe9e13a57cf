import { mkdtemp, readFile, realpath, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { makePath, writePython } from "./fakes/python";
import { commands, fake, log, Uri } from "./fakes/vscode";
import type { Transport } from "../src/links";
import { Launcher } from "../src/launcher";
import type { Connection } from "../src/status";
import { Tokens } from "../src/tokens";

const PATIENCE = { timeout: 15_000 };

let folder: string;
let server: Launcher;
/** What the session was told to do, in order. */
let told: (Transport | Connection)[];
let secrets: Map<string, string>;

beforeEach(async () => {
  fake.reset();
  folder = await realpath(await mkdtemp(path.join(tmpdir(), "forelook-")));
  vi.stubEnv("PATH", await makePath(path.join(folder, "path")));
  told = [];
  const session = {
    start: (transport: Transport) => Promise.resolve(void told.push(transport)),
    stop: (connection: Connection) => Promise.resolve(void told.push(connection)),
  };
  secrets = new Map();
  const storage = {
    get: (key: string) => Promise.resolve(secrets.get(key)),
    store: (key: string, value: string) => Promise.resolve(void secrets.set(key, value)),
    delete: (key: string) => Promise.resolve(void secrets.delete(key)),
  };
  const context = {
    globalStorageUri: Uri.file(path.join(folder, "home")),
    extensionPath: folder,
    extension: { packageJSON: { version: "9.9.9" } },
  };
  server = new Launcher(context as never, session as never, new Tokens(storage as never), log() as never);
});

/** On PATH, an interpreter that answers once the file `.go` lies beside it. */
async function writeSlowPython(): Promise<string> {
  const slow = await writePython(path.join(folder, "path", "python3"), {});
  const waiting = `#!/bin/sh\nwhile [ ! -e "${slow}.go" ]; do sleep 0.02; done`;
  await writeFile(slow, (await readFile(slow, "utf8")).replace("#!/bin/sh", waiting));
  return slow;
}

afterEach(async () => {
  vi.unstubAllEnvs();
  await rm(folder, { recursive: true, force: true });
});

test("an untrusted workspace starts nothing, not even a look for Python", async () => {
  fake.isTrusted = false;
  const python = await writePython(path.join(folder, "python"), { forelook: "9.9.9" });
  fake.set("forelook.server.interpreter", python);
  fake.set("forelook.server.url", "ws://127.0.0.1:4000");
  await server.start();
  expect(told).toEqual([{ kind: "untrusted" }]);
  await expect(realpath(`${python}.calls`)).rejects.toThrow();
});

test("in an untrusted workspace the commands start nothing either, and say why", async () => {
  fake.isTrusted = false;
  const python = await writePython(path.join(folder, "path", "python3"), {});
  fake.answers = [undefined, "Manage Workspace Trust"];
  await server.installPrivately();
  await server.chooseInterpreter();
  await vi.waitFor(() => expect(fake.executed).toContainEqual({ command: "workbench.trust.manage", args: [] }), PATIENCE);
  expect(fake.prompts).toEqual(Array(2).fill("Forelook does not start programs in untrusted workspaces."));
  expect(told).toEqual([]);
  await expect(realpath(`${python}.calls`)).rejects.toThrow();
});

test("the server is started in the extension's own folder, not in the workspace", async () => {
  const python = await writePython(path.join(folder, "python"), { forelook: "9.9.9" });
  fake.set("forelook.server.interpreter", python);
  await server.start();
  expect(told).toEqual([{ kind: "stdio", command: python, args: ["-m", "forelook_lsp"], cwd: path.join(folder, "home") }]);
  expect(fake.prompts).toEqual([]);
});

test("of two starts at once, the later has the word, though it is done first", async () => {
  const slow = await writeSlowPython();
  const first = server.start();
  const python = await writePython(path.join(folder, "python"), { forelook: "9.9.9" });
  fake.set("forelook.server.interpreter", python);
  await server.start();
  await writeFile(`${slow}.go`, "");
  await first;
  expect(told).toMatchObject([{ kind: "stdio", command: python }]);
});

test("of two starts at once, the later has the word, though VS Code takes its time with the earlier", async () => {
  const [python, later] = [path.join(folder, "python"), path.join(folder, "later")];
  for (const each of [python, later]) {
    await writePython(each, { forelook: "9.9.9" });
  }
  let goOn = (): void => undefined;
  const held = new Promise<void>((resolve) => (goOn = resolve));
  vi.spyOn(commands, "executeCommand").mockReturnValueOnce(held);
  fake.set("forelook.server.interpreter", python);
  const first = server.start();
  await vi.waitFor(() => expect(commands.executeCommand).toHaveBeenCalled(), PATIENCE);
  fake.set("forelook.server.interpreter", later);
  await server.start();
  goOn();
  await first;
  expect(told).toMatchObject([{ kind: "stdio", command: later }]);
});

test("a start under way when an installation begins changes nothing", async () => {
  const slow = await writeSlowPython();
  const start = server.start();
  fake.answers = ["With CUDA"];
  const installing = server.installPrivately();
  await vi.waitFor(() => expect(told).toEqual([{ kind: "installing" }]), PATIENCE);
  await writeFile(`${slow}.go`, "");
  await start;
  await installing;
  expect(told.map(({ kind }) => kind)).toEqual(["installing", "stdio"]);
});

test("a machine without Forelook is offered it, once", async () => {
  await writePython(path.join(folder, "path", "python3"), {});
  await server.start();
  await server.start();
  expect(told.map((state) => state.kind)).toEqual(["missing", "missing"]);
  expect(fake.prompts).toHaveLength(1);
  expect(fake.prompts[0]).toMatch(/server is not installed\. Install puts it into a private environment/);
  expect(fake.executed).toContainEqual({ command: "setContext", args: ["forelook.serverFound", false] });
});

test("a machine without Python is told to install it", async () => {
  await server.start();
  expect(told[0]).toMatchObject({ kind: "missing", message: expect.stringMatching(/Python 3\.10 or newer was not found/) as string });
});

test("a wrong interpreter in the settings is named", async () => {
  fake.set("forelook.server.interpreter", "/nowhere/python");
  await server.start();
  expect(told[0]).toMatchObject({
    kind: "missing",
    message: "forelook.server.interpreter is /nowhere/python: not a working Python.",
  });
});

test("the offer's answer installs, and the new environment is started", async () => {
  await writePython(path.join(folder, "path", "python3"), {});
  fake.answers = ["Install", "For the CPU"];
  await server.start();
  await vi.waitFor(() => expect(told.at(-1)).toMatchObject({ kind: "stdio" }), PATIENCE);
  expect(told.map((state) => state.kind)).toEqual(["missing", "installing", "stdio"]);
  expect(server.interpreter).toMatchObject({ origin: "private environment", version: "9.9.9" });
});

test("a failed installation says why", async () => {
  fake.answers = ["With CUDA"];
  await writePython(path.join(folder, "path", "python3"), { pip: "echo 'No space left'; exit 1" });
  await server.installPrivately();
  expect(fake.prompts).toContain("pip could not install Forelook: No space left");
  expect(told.at(-1)).toMatchObject({ kind: "missing" });
});

test("an installation the user thought better of leaves what runs", async () => {
  fake.answers = [undefined];
  await server.installPrivately();
  expect(told).toEqual([]);
});

test("an installation puts a setting aside that would win over it", async () => {
  await writePython(path.join(folder, "path", "python3"), {});
  fake.set("forelook.server.interpreter", "/nowhere/python");
  fake.answers = ["With CUDA"];
  await server.installPrivately();
  expect(fake.value("forelook.server.interpreter")).toBeUndefined();
});

test("a private environment of another version is offered an update", async () => {
  await writePython(path.join(folder, "home", "environment", "bin", "python"), { forelook: "9.9.8" });
  await server.start();
  expect(fake.prompts).toEqual(["The private environment has Forelook 9.9.8; this extension needs 9.9.9."]);
});

test("a server over websocket gets the token stored for its host, and no other's", async () => {
  fake.set("forelook.server.url", "wss://code.example.org/lsp");
  const tokens = new Tokens({ store: (key: string, value: string) => Promise.resolve(void secrets.set(key, value)) } as never);
  await tokens.set("wss://code.example.org/", "right");
  await tokens.set("wss://other.example.org/", "wrong");
  await server.start();
  expect(told).toEqual([{ kind: "websocket", url: "wss://code.example.org/lsp", token: "right" }]);
});

test("an address that may not be used is told, and nothing is reached", async () => {
  fake.set("forelook.server.url", "ws://10.0.0.3:4000");
  await server.start();
  expect(told).toMatchObject([{ kind: "failed", message: expect.stringMatching(/unencrypted/) as string }]);
});

test("choosing an interpreter without Forelook changes no setting", async () => {
  const python = await writePython(path.join(folder, "python"), {});
  fake.answers = [python];
  await server.chooseInterpreter();
  expect(fake.value("forelook.server.interpreter")).toBeUndefined();
  expect(fake.prompts[0]).toMatch(/Forelook is not installed in it/);
});

test("choosing one that has it sets it", async () => {
  const python = await writePython(path.join(folder, "python"), { forelook: "9.9.9" });
  fake.answers = [python];
  await server.chooseInterpreter();
  expect(fake.value("forelook.server.interpreter")).toBe(python);
});
