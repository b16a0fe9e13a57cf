import { access, mkdir, mkdtemp, readFile, realpath, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { makePath, writePython } from "./fakes/python";
import { fake, log } from "./fakes/vscode";
import { bundledWheel, install, InstallError, progressOf } from "../src/install";
import { InterpreterFinder } from "../src/interpreter";

let folder: string;
let home: string;
let finder: InterpreterFinder;
const channel = log();

beforeEach(async () => {
  fake.reset();
  folder = await realpath(await mkdtemp(path.join(tmpdir(), "forelook-")));
  home = path.join(folder, "home");
  await mkdir(home);
  finder = new InterpreterFinder(home, channel as never);
  vi.stubEnv("PATH", await makePath(path.join(folder, "path")));
});

afterEach(async () => {
  vi.unstubAllEnvs();
  await rm(folder, { recursive: true, force: true });
});

const never = new AbortController().signal;

function installHere(report: (doing: string) => void = () => undefined, signal = never, pipArguments: string[] = [], torchIndex?: string) {
  const installation = { extensionPath: folder, version: "1.2.3", torchIndex, pipArguments };
  return install(finder, installation, channel as never, report, signal);
}

function exists(file: string): Promise<boolean> {
  return access(file).then(
    () => true,
    () => false,
  );
}

test("an environment of its own is made, and has Forelook afterwards", async () => {
  const base = await writePython(path.join(folder, "path", "python3"), { pip: "echo 'Collecting torch>=2.11'" });
  const told: string[] = [];
  const python = await installHere((doing) => told.push(doing), never, ["--index-url", "https://mirror.example.org"]);
  expect(python).toBe(path.join(home, "environment", "bin", "python"));
  expect((await finder.search(undefined)).found).toMatchObject({ python, version: "9.9.9" });
  expect(told).toEqual(["looking for Python", "creating the environment", "downloading", "collecting torch", "downloading the default model"]);
  expect(await exists(`${base}.installed`), "the base interpreter is left as it was").toBe(false);
  const calls = await readFile(`${python}.calls`, "utf8");
  expect(calls).toContain(
    "-m pip install --no-input --disable-pip-version-check --index-url https://mirror.example.org forelook==1.2.3",
  );
  expect(calls).toContain("-m forelook pull smollm2-135m --pip-argument=--index-url --pip-argument=https://mirror.example.org");
});

test("a default model that cannot be fetched leaves the installation as it is", async () => {
  await writePython(path.join(folder, "path", "python3"), { pull: "echo 'forelook: no network' >&2; exit 4" });
  const python = await installHere();
  expect((await finder.search(undefined)).found).toMatchObject({ python });
  expect(channel.lines.join("\n")).toContain("forelook: no network");
});

test("PyTorch comes first, and alone, from an index of its own", async () => {
  await writePython(path.join(folder, "path", "python3"), {});
  const python = await installHere(undefined, never, [], "https://torch.example.org/whl/cpu");
  const installs = (await readFile(`${python}.calls`, "utf8")).split("\n").filter((call) => call.includes("-m pip install"));
  expect(installs.map((call) => call.split("--disable-pip-version-check ")[1])).toEqual([
    "--index-url https://torch.example.org/whl/cpu torch",
    "forelook==1.2.3",
  ]);
});

test("an index of PyTorch that cannot be reached is named, and no environment is left", async () => {
  await writePython(path.join(folder, "path", "python3"), { pip: "echo 'No route to host'; exit 1" });
  await expect(installHere(undefined, never, [], "https://torch.example.org/whl/cpu")).rejects.toThrow(
    "pip could not install PyTorch from torch.example.org: No route to host",
  );
  expect(await exists(path.join(home, "environment"))).toBe(false);
});

test("the wheel that came with the extension is what gets installed", async () => {
  await writePython(path.join(folder, "path", "python3"), {});
  const wheel = path.join(folder, "server", "forelook-1.2.3-py3-none-any.whl");
  await mkdir(path.dirname(wheel));
  await writeFile(wheel, "");
  expect(await bundledWheel(folder)).toBe(wheel);
  const python = await installHere();
  expect(await readFile(`${python}.calls`, "utf8")).toContain(wheel);
});

test("what came with the extension is installed in the pinned versions, with their hashes checked", async () => {
  await writePython(path.join(folder, "path", "python3"), {});
  const server = path.join(folder, "server");
  await mkdir(server);
  const wheel = path.join(server, "forelook-1.2.3-py3-none-any.whl");
  await writeFile(wheel, "");
  await writeFile(path.join(server, "requirements.txt"), "a==1 --hash=sha256:0\n");
  await writeFile(path.join(server, "torch.txt"), "torch==2.13.0\n");
  for (const torchIndex of [undefined, "https://torch.example.org/whl/cpu"]) {
    const python = await installHere(undefined, never, [], torchIndex);
    const calls = (await readFile(`${python}.calls`, "utf8")).split("\n").filter((call) => call.includes("-m pip install"));
    expect(calls.map((call) => call.split("--disable-pip-version-check ")[1])).toEqual([
      `--require-hashes --no-deps -r ${path.join(server, "requirements.txt")}`,
      torchIndex === undefined ? "torch==2.13.0" : `--index-url ${torchIndex} torch==2.13.0`,
      `--no-deps ${wheel}`,
    ]);
  }
  const python = await installHere(undefined, never, ["--no-deps"]);
  const calls = (await readFile(`${python}.calls`, "utf8")).split("\n").filter((call) => call.includes("-m pip install"));
  expect(calls, "whose user has the dependencies already").toHaveLength(1);
  expect(calls[0]).toContain(`--no-deps ${wheel}`);
});

test("a failure names pip's last words and leaves no half environment", async () => {
  await writePython(path.join(folder, "path", "python3"), { pip: "echo 'ERROR: No space left' >&2; exit 1" });
  await expect(installHere()).rejects.toThrow(new InstallError("pip could not install Forelook: ERROR: No space left"));
  expect(await exists(finder.privateEnvironment)).toBe(false);
});

test("without Python, the message says what to do", async () => {
  await expect(installHere()).rejects.toThrow(/Python 3\.10 or newer was not found; install it/);
});

test("cancelling ends pip and removes what there is", async () => {
  await writePython(path.join(folder, "path", "python3"), { pip: "echo 'Collecting torch'; exec sleep 600" });
  const cancelled = new AbortController();
  const report = (doing: string): void => {
    if (doing === "collecting torch") {
      cancelled.abort();
    }
  };
  await expect(installHere(report, cancelled.signal)).rejects.toThrow();
  expect(await exists(finder.privateEnvironment)).toBe(false);
});

test.each([
  ["Collecting torch>=2.11 (from forelook==1.2.3)", "collecting torch"],
  ["Processing ./forelook-1.2.3-py3-none-any.whl", undefined],
  ["  Downloading torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl (190.1 MB)", "downloading torch (190.1 MB)"],
  ["  Downloading https://mirror.example.org/a/b/numpy-2.0.0-cp311.whl (18 MB)", "downloading numpy (18 MB)"],
  ["Installing collected packages: torch, forelook", "installing"],
  ["Requirement already satisfied: pip", undefined],
])("pip's line %j is told as %j", (line, told) => {
  expect(progressOf(line)).toBe(told);
});
