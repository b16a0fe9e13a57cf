/** Runs the extension-host tests of `extension/host-tests` in a real VS Code server. */

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { cp, mkdir, writeFile } from "node:fs/promises";
import path from "node:path";
import { after, before, describe, test, type TestContext } from "node:test";
import { eventually } from "./eventually.ts";
import { Lab, REPOSITORY } from "./lab.ts";

describe("in the extension host", () => {
  let lab: Lab;

  before(async () => {
    const extension = path.join(REPOSITORY, "extension");
    for (const what of ["--production", "--host-tests"]) {
      const built = spawnSync(process.execPath, ["esbuild.mjs", what], { cwd: extension, encoding: "utf8" });
      assert.equal(built.status, 0, built.stderr);
    }
    lab = await Lab.start({ name: "host", server: "vscode" });
  });
  after(() => lab?.stop());

  test("all tests with the real API pass", async (t: TestContext) => {
    const second = path.join(lab.folder, "second");
    await mkdir(second);
    await cp(path.join(lab.workspace, "orders.py"), path.join(second, "orders.py"));
    const workspace = path.join(lab.folder, "two.code-workspace");
    await writeFile(workspace, JSON.stringify({ folders: [{ path: "workspace" }, { path: "second" }] }));

    const extension = path.join(REPOSITORY, "extension");
    const window = await lab.open(undefined, {
      workspace,
      payload: [
        ["extensionDevelopmentPath", lab.uri(extension)],
        ["extensionTestsPath", lab.uri(path.join(extension, "build", "host-tests.js"))],
      ],
      beforeLoad: async (page) => {
        page.on("console", (message) => {
          const text = message.text();
          if (text.includes("host test")) {
            lines.push(text.replace(/^.*?(host tests?)/s, "$1"));
          }
        });
        await page.exposeFunction("codeAutomationLog", () => undefined);
        await page.exposeFunction("codeAutomationExit", (code: number) => (exitCode = code));
      },
    });
    try {
      await eventually("the tests are done", () => exitCode !== undefined, 240_000);
    } finally {
      await window.screenshot("at the end");
    }
    lines.forEach((line) => t.diagnostic(line));
    assert.equal(exitCode, 0, lines.filter((line) => line.includes("FAILED")).join("\n"));
  });

  const lines: string[] = [];
  let exitCode: number | undefined;
});
