import { mkdtemp, readFile, realpath, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { fake, log, Uri } from "./fakes/vscode";
import { makePath, writePython } from "./fakes/python";
import { InterpreterFinder } from "../src/interpreter";

let folder: string;
let finder: InterpreterFinder;

beforeEach(async () => {
  fake.reset();
  folder = await realpath(await mkdtemp(path.join(tmpdir(), "forelook-")));
  finder = new InterpreterFinder(folder, log() as never);
  vi.stubEnv("PATH", await makePath(path.join(folder, "path")));
});

afterEach(async () => {
  vi.unstubAllEnvs();
  await rm(folder, { recursive: true, force: true });
});

function withPythonExtension(interpreter: string): void {
  fake.extensions.set("ms-python.python", {
    activate: () =>
      Promise.resolve({
        environments: {
          getActiveEnvironmentPath: () => ({ path: interpreter }),
          resolveEnvironment: ({ path: file }: { path: string }) => Promise.resolve({ executable: { uri: Uri.file(file) } }),
        },
      }),
  });
}

describe("the interpreter", () => {
  test("of the setting wins", async () => {
    await writePython(finder.privatePython, { forelook: "1.0.0" });
    const chosen = await writePython(path.join(folder, "chosen"), { forelook: "2.0.0" });
    expect((await finder.search(chosen)).found).toEqual({ python: chosen, origin: "setting", version: "2.0.0" });
  });

  test("of a wrong setting is not replaced by another", async () => {
    await writePython(finder.privatePython, { forelook: "1.0.0" });
    const wrong = path.join(folder, "nowhere", "python");
    expect(await finder.search(wrong)).toEqual({
      found: undefined,
      attempts: [{ python: wrong, origin: "setting", outcome: "no such program" }],
    });
  });

  test("of the private environment comes before the Python extension's, and that before PATH", async () => {
    const onPath = await writePython(path.join(folder, "path", "python3"), { forelook: "3.0.0" });
    expect((await finder.search(undefined)).found).toMatchObject({ python: onPath, origin: "PATH" });

    const project = await writePython(path.join(folder, "project", "bin", "python"), { forelook: "2.0.0" });
    withPythonExtension(project);
    expect((await finder.search(undefined)).found).toMatchObject({ python: project, origin: "Python extension" });

    await writePython(finder.privatePython, { forelook: "1.0.0" });
    expect((await finder.search(undefined)).found).toMatchObject({ version: "1.0.0", origin: "private environment" });
  });

  test("without Forelook, or too old, is passed over, and the search says so", async () => {
    const project = await writePython(path.join(folder, "project", "bin", "python"), {});
    withPythonExtension(project);
    const old = await writePython(path.join(folder, "path", "python3"), { version: [3, 9], forelook: "1.0.0" });
    const { found, attempts } = await finder.search(undefined);
    expect(found).toBeUndefined();
    expect(attempts).toContainEqual({ python: project, origin: "Python extension", outcome: "without Forelook" });
    expect(attempts).toContainEqual({ python: old, origin: "PATH", outcome: "Python is too old" });
  });

  test("of a tool environment is found beside the launcher's real place", async () => {
    const python = await writePython(path.join(folder, "tools", "forelook", "bin", "python"), { forelook: "4.0.0" });
    const launcher = await writePython(path.join(folder, "tools", "forelook", "bin", "forelook-lsp"), {});
    await symlink(launcher, path.join(folder, "path", "forelook-lsp"));
    expect((await finder.search(undefined)).found).toMatchObject({ python, version: "4.0.0" });
  });

  test("is asked in the extension's own folder, so that the workspace's modules are not imported", async () => {
    const python = await writePython(path.join(folder, "chosen"), { forelook: "2.0.0" });
    await finder.search(python);
    expect((await readFile(`${python}.calls`, "utf8")).split("|")[0]).toBe(folder);
  });

  test("on a relative entry of PATH is not used: it would be the workspace's", async () => {
    await writePython(path.join(folder, "here", "python3"), { forelook: "6.6.6" });
    vi.stubEnv("PATH", ["here", ".", path.join(folder, "path")].join(path.delimiter));
    const before = process.cwd();
    process.chdir(folder);
    try {
      expect((await finder.search(undefined)).found).toBeUndefined();
    } finally {
      process.chdir(before);
    }
  });

  test("is found although the Python extension fails", async () => {
    fake.extensions.set("ms-python.python", { activate: () => Promise.reject(new Error("broken")) });
    const python = await writePython(path.join(folder, "path", "python3"), { forelook: "3.0.0" });
    expect((await finder.search(undefined)).found).toMatchObject({ python });
  });
});

test("a private environment is made with an interpreter that is recent enough, and not with itself", async () => {
  await writePython(finder.privatePython, {});
  await writePython(path.join(folder, "path", "python3"), { version: [3, 9] });
  expect(await finder.basePython()).toBeUndefined();
  const recent = await writePython(path.join(folder, "path", "python3.12"), { version: [3, 12] });
  expect(await finder.basePython()).toBe(recent);
});
