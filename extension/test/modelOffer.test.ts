import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { writePython } from "./fakes/python";
import { fake, log } from "./fakes/vscode";
import { ModelOffer } from "../src/modelOffer";
import type { Connection } from "../src/status";

const READY: Connection = { kind: "running", status: { state: "ready", model: "starter-model" } };
const MESSAGE = "Forelook runs its small bundled model. This machine can run own/large: 1.0 GB to download, Apache-2.0";

let folder: string;
let memory: Map<string, unknown>;

beforeEach(async () => {
  fake.reset();
  folder = await mkdtemp(path.join(tmpdir(), "forelook-"));
  memory = new Map();
});

afterEach(() => rm(folder, { recursive: true }));

const listing = (offer: unknown, wasBusy = false) => ({
  machine: { speed: { was_busy: wasBusy } },
  installed: [],
  recommended: [],
  offer,
});

async function show(printed: unknown, connection = READY): Promise<void> {
  const python = await writePython(path.join(folder, "python"), { models: JSON.stringify(printed) });
  const globalState = { get: (key: string) => memory.get(key), update: async (key: string, value: unknown) => void memory.set(key, value) };
  const offer = new ModelOffer(globalState as never, folder, log() as never, 0);
  await Promise.all([offer.show(connection, python), offer.show(connection, python)]);
}

const calls = (): Promise<string> => readFile(path.join(folder, "python.calls"), "utf8").catch(() => "");

test("one click downloads the model that suits the machine, with size and license before it", async () => {
  fake.answers = ["Download and Use"];
  await show(listing({ model: "own/large", message: MESSAGE }));
  expect(fake.prompts).toEqual([`${MESSAGE}.`]);
  expect(fake.value("forelook.model")).toBe("own/large");
});

test("one click downloads the default model, which then runs where none is chosen", async () => {
  fake.answers = ["Download and Use"];
  await show(listing({ model: "smollm2-135m", message: "The small bundled model answers", is_default: true }));
  expect(await calls()).toContain("-m forelook pull smollm2-135m");
  expect(fake.value("forelook.model")).toBeUndefined();
});

test("it is offered once, whatever the answer", async () => {
  await show(listing({ model: "own/large", message: MESSAGE }));
  await show(listing({ model: "own/large", message: MESSAGE }));
  expect(fake.prompts).toHaveLength(1);
  expect(fake.value("forelook.model")).toBeUndefined();
  expect((await calls()).trim().split("\n")).toHaveLength(1);
});

test("a machine that was busy is asked again at the next start", async () => {
  await show(listing(null, true));
  expect(memory.size).toBe(0);
  await show(listing({ model: "own/large", message: MESSAGE }));
  expect(fake.prompts).toHaveLength(1);
});

test("nothing is offered where no model suits", async () => {
  await show(listing(null));
  expect(fake.prompts).toEqual([]);
});

test.each<Connection>([{ kind: "stopped" }, { kind: "running", status: { state: "loading" } }])(
  "nothing is rated before suggestions work: %j",
  async (connection) => {
    await show(listing({ model: "own/large", message: MESSAGE }), connection);
    expect(await calls()).toBe("");
  },
);

test("a chosen model is left alone", async () => {
  fake.set("forelook.model", "/models/mine");
  await show(listing({ model: "own/large", message: MESSAGE }));
  expect(await calls()).toBe("");
});
