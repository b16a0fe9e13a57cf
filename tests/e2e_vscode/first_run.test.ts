/** A machine without the server, and a workspace without trust. */

import assert from "node:assert/strict";
import { after, before, describe } from "node:test";
import { eventually, neverWithin } from "./eventually.ts";
import { Lab } from "./lab.ts";
import { scenario } from "./scenario.ts";
import type { EditorWindow } from "./window.ts";

describe("on a machine without the server", () => {
  let lab: Lab;
  let window: EditorWindow;

  before(async () => {
    lab = await Lab.start({ name: "first_run", machineSettings: {} });
    window = await lab.open("shop.py");
  });
  after(() => lab?.stop());

  const inEditor = (name: string, run: (window: EditorWindow) => Promise<void>): void => scenario(name, () => window, run);

  inEditor("it is offered, once, and the status says what is missing", async () => {
    await window.untilStatus(/Forelook is not set up/);
    const offer = window.page.locator(".notification-toast", { hasText: "its server is not installed yet" });
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
});

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
    await window.untilStatus(/waits for trust/);
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
