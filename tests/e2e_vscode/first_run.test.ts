/** A machine without the server, and a workspace without trust. */

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import path from "node:path";
import { after, before, describe } from "node:test";
import { eventually, neverWithin } from "./eventually.ts";
import { Lab } from "./lab.ts";
import { scenario } from "./scenario.ts";
import type { EditorWindow } from "./window.ts";

describe("on a machine without the server", () => {
  let lab: Lab;
  let window: EditorWindow;

  before(async () => {
    lab = await Lab.start({ name: "first_run", machineSettings: {}, environment: borrowedPackages() });
    window = await lab.open("shop.py");
  });
  after(() => lab?.stop());

  const inEditor = (name: string, run: (window: EditorWindow) => Promise<void>): void => scenario(name, () => window, run);

  inEditor("it is offered, once, and the status says what is missing", async () => {
    await window.untilStatus(/Forelook is not set up/);
    const offer = window.page.locator(".notification-toast", { hasText: "server is not installed" });
    await offer.locator(".monaco-button", { hasText: "Install" }).waitFor();
    await window.screenshot("01 offered");
    assert.equal(await offer.count(), 1);
  });

  inEditor("the walkthrough opens", async () => {
    await window.command("Forelook: Open Walkthrough");
    await window.page.locator(".gettingStartedContainer", { hasText: "Set up the server" }).waitFor();
    await window.screenshot("02 walkthrough");
  });

  inEditor("the right interpreter in the settings is all it takes", async () => {
    await window.editMachineSettings(Lab.machineSettings);
    await window.untilStatus(/starter-model/);
  });

  inEditor("which PyTorch to download is asked, and to change one's mind changes nothing", async () => {
    await window.editMachineSettings({});
    await window.untilStatus(/Forelook is not set up/);
    await window.command("Forelook: Install the Server in a Private Environment");
    await window.page.locator(".quick-input-list .monaco-list-row", { hasText: "For the CPU" }).waitFor();
    await window.screenshot("03 which PyTorch");
    await window.press("Escape");
    assert.equal(await lab.privateEnvironment(), undefined);
  });

  inEditor("a private environment is made from the wheel in the package, and suggestions come from it", async () => {
    await window.editMachineSettings({ "forelook.server.pipArguments": ["--no-deps", "--ignore-installed"] });
    lab.forelook("stop"); // the one that the interpreter of the settings started
    await window.command("Forelook: Open Walkthrough");
    // The step is done since an interpreter was set, and so the next one is open.
    const walkthrough = window.page.locator(".gettingStartedContainer");
    await walkthrough.locator(".step-title", { hasText: "Set up the server" }).click();
    await walkthrough.locator(".monaco-button", { hasText: "Install in a private environment" }).click();
    await window.page.locator(".notification-toast", { hasText: "installing the server" }).waitFor();
    await window.untilStatus(/Forelook installing/);
    await window.screenshot("04 installing");
    await window.untilStatus(/starter-model|smollm2-135m/); // the latter where a package index is reachable
    const environment = await lab.privateEnvironment();
    assert.ok(environment);
    for (const id of [...(await lab.languageServerIds()), ...(await lab.backendIds())]) {
      assert.ok((await lab.commandLine(id)).startsWith(environment), "it runs from the private environment");
    }
    await lab.write("installed.py", "\n    def find(self, name: str) -> Item:\n        ");
    await window.openFile("installed.py");
    await window.press("Control+End");
    await window.type("return ");
    const ghost = await window.untilGhost();
    await window.press("Tab");
    await window.untilSaved("installed.py", (text) => text.includes(`return ${ghost.split("\n")[0]}`));
    await window.screenshot("05 from the private environment");
  });
});

/**
 * What the server depends on, lent by this checkout's environment, so that no test downloads PyTorch. Forelook itself is
 * not among it: the checkout's own is found through a `.pth` file, which counts in its environment only.
 */
function borrowedPackages(): Record<string, string> {
  const program = "import sys, sysconfig; print(sysconfig.get_path('purelib')); print(sys._base_executable)";
  const finished = spawnSync(Lab.python, ["-c", program], { encoding: "utf8" });
  const [packages = "", base = ""] = finished.stdout.split("\n");
  assert.equal(finished.status, 0, finished.stderr);
  return { PYTHONPATH: packages, PATH: `${path.dirname(base)}${path.delimiter}${process.env["PATH"]}` };
}

describe("in a workspace that is not trusted", () => {
  let lab: Lab;
  let window: EditorWindow;

  before(async () => {
    lab = await Lab.start({
      name: "trust",
      workspaceTrust: true,
      settings: { "security.workspace.trust.startupPrompt": "never" },
    });
    window = await lab.open("shop.py");
  });
  after(() => lab?.stop());

  const inEditor = (name: string, run: (window: EditorWindow) => Promise<void>): void => scenario(name, () => window, run);

  inEditor("nothing is started", async () => {
    await window.untilStatus(/untrusted workspace/);
    await neverWithin("a process of Forelook's", async () => (await lab.processIds("forelook_lsp")).length > 0, 2_000);
    await window.screenshot("01 not trusted");
  });

  inEditor("trust starts it", async () => {
    await window.command("Workspaces: Manage Workspace Trust");
    await window.page.locator(".workspace-trust-editor .monaco-button", { hasText: /^Trust$/ }).first().click();
    await window.untilStatus(/starter-model/);
    await eventually("the language server runs", async () => (await lab.languageServerIds()).length === 1);
  });
});
