/** The commands of the palette and of the status item's menu, and the model that changes under way. */

import assert from "node:assert/strict";
import { cp, readFile } from "node:fs/promises";
import path from "node:path";
import { after, before, describe } from "node:test";
import { eventually } from "./eventually.ts";
import { Lab, REPOSITORY } from "./lab.ts";
import { scenario } from "./scenario.ts";
import type { EditorWindow } from "./window.ts";

describe("commands", () => {
  let lab: Lab;
  let window: EditorWindow;

  before(async () => {
    lab = await Lab.start({ name: "commands" });
    window = await lab.open("shop.py");
    await window.untilReady();
  });
  after(() => lab?.stop());

  const inEditor = (name: string, run: (window: EditorWindow) => Promise<void>): void => scenario(name, () => window, run);

  inEditor("the status item opens the menu", async () => {
    await window.clickStatus();
    const menu = window.page.locator(".quick-input-widget");
    for (const entry of ["Pause everywhere", "Pause in python", "Suggest now", "Show statistics", "Choose model", "Restart", "Run doctor"]) {
      await menu.locator(".monaco-list-row", { hasText: entry }).first().waitFor();
    }
    await window.screenshot("01 menu");
    await window.press("Escape");
  });

  inEditor("another model is chosen, is loaded with its share told, and suggests", async () => {
    const model = path.join(lab.folder, "another-model");
    await cp(path.join(REPOSITORY, "backend", "forelook", "starter_model"), model, { recursive: true });
    await window.watchStatus();
    await window.command("Forelook: Choose Model…");
    await window.page.locator(".quick-input-list .monaco-list-row", { hasText: "A folder…" }).waitFor();
    await window.screenshot("02 models");
    await window.page.locator(".quick-input-list .monaco-list-row", { hasText: "A folder…" }).click();
    await window.chooseInDialog(`${model}/`);
    await window.untilStatus(/another-model/);
    assert.match((await window.statusHistory()).join("\n"), /Forelook loading \d+%/);
    await window.screenshot("03 another model");
    const settings = path.join(lab.folder, "user", "Machine", "settings.json");
    assert.match(await readFile(settings, "utf8"), /"forelook\.model"/, "a machine's setting");
    await lab.write("another.py", "\n    def find(self, name: str) -> Item:\n        ");
    await window.openFile("another.py");
    await window.press("Control+End");
    await window.type("return ");
    await window.untilGhost();
    await window.press("Escape");
  });

  inEditor("the default model is chosen again", async () => {
    await window.command("Forelook: Choose Model…");
    await window.page.locator(".quick-input-list .monaco-list-row", { hasText: "adapted for infilling" }).click();
    await window.untilStatus(/starter-model/);
  });

  inEditor("the doctor reports", async () => {
    await window.command("Forelook: Run Doctor");
    const page = window.page.locator(".tab.active", { hasText: "Forelook doctor.txt" });
    await page.waitFor({ timeout: 60_000 });
    await eventually("its findings", async () => /torch/i.test(await window.editorText()));
    await window.screenshot("04 doctor");
    assert.doesNotMatch(await window.editorText(), /Traceback/);
  });

  inEditor("the log is shown", async () => {
    // Its lines are not: VS Code keeps a log in a file, by a native module that is not built here.
    await window.command("Forelook: Show Log");
    const channels = window.page.locator(".part.panel select").first();
    await channels.waitFor({ state: "attached" });
    const shown = await channels.evaluate((list: HTMLSelectElement) => list.selectedOptions[0]?.text);
    assert.equal(shown, "Forelook");
    await window.screenshot("05 log");
    await window.command("View: Hide Panel");
  });

  inEditor("the settings are shown, in groups", async () => {
    await window.command("Forelook: Open Settings");
    const settings = window.page.locator(".settings-editor");
    await settings.locator(".setting-item-label", { hasText: "Enable" }).first().waitFor();
    await window.screenshot("06 settings");
  });
});
