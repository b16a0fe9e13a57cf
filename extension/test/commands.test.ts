import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { beforeEach, describe, expect, test } from "vitest";
import { writePython } from "./fakes/python";
import { fake, log } from "./fakes/vscode";
import { registerCommands } from "../src/commands";
import type { Connection } from "../src/status";

let executed: string[];
let started: number;
let state: Connection;
let secrets: Map<string, string>;
let interpreter: { python: string } | undefined;

beforeEach(() => {
  fake.reset();
  executed = [];
  started = 0;
  state = { kind: "running", status: undefined };
  secrets = new Map();
  const session = {
    get state() {
      return state;
    },
    get isRunning() {
      return state.kind === "running";
    },
    execute: (command: string) => Promise.resolve(void executed.push(command)),
  };
  interpreter = undefined;
  const server = {
    start: () => Promise.resolve(void (started += 1)),
    get interpreter() {
      return interpreter;
    },
  };
  const tokens = {
    set: (url: string, token: string) => Promise.resolve(void secrets.set(url, token)),
    forget: (url: string) => Promise.resolve(void secrets.delete(url)),
  };
  registerCommands({ session, launcher: server, tokens, log: log(), home: "/" } as never);
});

async function run(command: string): Promise<void> {
  await fake.commands.get(`forelook.${command}`)?.();
}

describe("clearing the pool", () => {
  test("is done only after a question", async () => {
    await run("clearPool");
    expect(executed).toEqual([]);
    fake.answers = ["Clear"];
    await run("clearPool");
    expect(executed).toEqual(["forelook.clearPool.server"]);
  });

  test("without a server says so", async () => {
    state = { kind: "stopped" };
    await run("clearPool");
    expect(fake.prompts).toEqual(["Forelook's language server is not running; see the status bar for the reason."]);
  });
});

test("Restart restarts the backend, then the language server", async () => {
  await run("restart");
  expect(executed).toEqual(["forelook.restartBackend.server"]);
  expect(started).toBe(1);
});

describe("the menu", () => {
  const labels = async (): Promise<string[]> => {
    const seen: string[] = [];
    // Nothing is picked: the answer fits no label.
    const { window } = await import("./fakes/vscode");
    const original = window.showQuickPick;
    window.showQuickPick = (items) => {
      seen.push(...items.map(({ label }) => label.replace(/\$\([^)]*\) /, "")));
      return Promise.resolve(undefined);
    };
    await run("showMenu");
    window.showQuickPick = original;
    return seen;
  };

  test("offers to pause everywhere and in the active editor's language", async () => {
    fake.languageId = "go";
    expect((await labels()).slice(0, 2)).toEqual(["Pause everywhere", "Pause in go"]);
    fake.set("forelook.languages", { go: false });
    expect((await labels()).slice(0, 2)).toEqual(["Pause everywhere", "Resume in go"]);
    fake.set("forelook.enable", false);
    expect((await labels())[0]).toBe("Resume everywhere");
  });

  test("offers first what is missing", async () => {
    state = { kind: "missing", message: "" };
    expect((await labels())[0]).toBe("Install the server in a private environment");
    state = { kind: "untrusted" };
    expect((await labels())[0]).toBe("Manage workspace trust");
    state = { kind: "running", status: { state: "error", message: "accept it with `forelook.leftToRight`" } };
    expect((await labels())[0]).toBe("Use this model left to right");
  });

  test("runs what was picked", async () => {
    fake.answers = ["Restart"];
    await run("showMenu");
    expect(fake.executed.at(-1)?.command).toBe("forelook.restart");
    expect(started).toBe(1);
  });
});

describe("the model", () => {
  test("by default is the absence of the setting, and the bundled one has a name", async () => {
    fake.set("forelook.model", "/models/former");
    fake.answers = ["Default model"];
    await run("chooseModel");
    expect(fake.value("forelook.model")).toBeUndefined();
    fake.answers = ["Bundled model"];
    await run("chooseModel");
    expect(fake.value("forelook.model")).toBe("starter-model");
  });

  test("by default is a click away where its base is missing", async () => {
    const offer = "$(cloud-download) Download the default model";
    state = { kind: "running", status: { state: "ready", model: "starter-model" } };
    await run("showMenu");
    expect(fake.offered).not.toContain(offer);
    state = { kind: "running", status: { state: "ready", message: "`forelook pull smollm2-135m` gets a better one" } };
    await run("showMenu");
    expect(fake.offered).toContain(offer);
    const folder = await mkdtemp(path.join(tmpdir(), "forelook-"));
    interpreter = { python: await writePython(path.join(folder, "python"), {}) };
    await run("downloadDefaultModel");
    expect(await readFile(`${interpreter.python}.calls`, "utf8")).toContain("-m forelook pull smollm2-135m");
    await rm(folder, { recursive: true });
  });

  describe("of the catalogue", () => {
    const rating = (model: string, bytes: number, fits: boolean, is_slow: boolean, is_best: boolean) => ({
      model: { model, license: "Apache-2.0", download_bytes: bytes },
      needed_bytes: 1.2 * bytes,
      fits,
      estimate: { tokens_per_s: 41.7, prompt_s: 1.2 },
      is_slow,
      is_best,
    });
    const listing = {
      machine: { speed: null },
      offer: null,
      installed: [{ model: "own/small", fault: "" }],
      recommended: [
        rating("own/small", 1e9, true, false, true),
        rating("own/slow", 3e9, true, true, false),
        rating("own/large", 26e9, false, false, false),
      ],
    };
    let folder: string;

    beforeEach(async () => {
      folder = await mkdtemp(path.join(tmpdir(), "forelook-"));
    });

    const offered = async (output: string): Promise<string[]> => {
      interpreter = { python: await writePython(path.join(folder, "python"), { models: output }) };
      fake.set("forelook.device", "cuda:1");
      await run("chooseModel");
      await rm(folder, { recursive: true });
      return fake.offered;
    };

    test("is what `forelook models` prints, rated for this machine", async () => {
      fake.answers = ["own/large"];
      expect(await offered(JSON.stringify(listing))).toEqual([
        expect.stringContaining("Default model"),
        expect.stringContaining("Bundled model"),
        expect.stringContaining("A folder"),
        expect.stringContaining("A hub id"),
        "For this machine",
        "own/small",
        "Too large or too slow for this machine",
        "own/slow",
        "own/large",
      ]);
      expect(fake.value("forelook.model")).toBe("own/large");
    });

    test("is left out if the command fails", async () => {
      expect(await offered("Traceback")).toHaveLength(4);
    });
  });

  test("may be a folder, or a hub id", async () => {
    fake.answers = ["A folder…", "/models/mine"];
    await run("chooseModel");
    expect(fake.value("forelook.model")).toBe("/models/mine");
    fake.answers = ["A hub id…"];
    fake.inputs = [" owner/name "];
    await run("chooseModel");
    expect(fake.value("forelook.model")).toBe("owner/name");
  });

  test("stays as it is when nothing is chosen", async () => {
    fake.set("forelook.model", "/models/former");
    await run("chooseModel");
    expect(fake.value("forelook.model")).toBe("/models/former");
  });
});

describe("the server's token", () => {
  test("is kept for the address in the settings", async () => {
    fake.set("forelook.server.url", "wss://code.example.org");
    fake.inputs = [" secret "];
    await run("setServerToken");
    expect([...secrets]).toEqual([["wss://code.example.org", "secret"]]);
    await run("forgetServerToken");
    expect(secrets.size).toBe(0);
  });

  test("needs an address first", async () => {
    await run("setServerToken");
    expect(fake.prompts[0]).toMatch(/forelook\.server\.url is not set/);
  });
});

test("the doctor examines what the settings would run", async () => {
  const folder = await mkdtemp(path.join(tmpdir(), "forelook-"));
  interpreter = { python: await writePython(path.join(folder, "python"), {}) };
  fake.set("forelook.model", "/models/of mine");
  fake.set("forelook.device", "cuda:1");
  fake.set("forelook.dtype", "auto");
  fake.set("forelook.leftToRight", true);
  await run("runDoctor");
  const calls = await readFile(path.join(folder, "python.calls"), "utf8");
  expect(calls.trim().split("|")[1]).toBe("-m forelook doctor --model=/models/of mine --device=cuda:1 --left-to-right");
  await rm(folder, { recursive: true });
});

test("the doctor says why it cannot examine a server that is not here", async () => {
  await run("runDoctor");
  expect(fake.prompts[0]).toMatch(/No local server to diagnose/);
});
