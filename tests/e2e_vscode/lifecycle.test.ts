/** Windows, language servers and backends that come and go. */

import assert from "node:assert/strict";
import { after, before, describe } from "node:test";
import { eventually } from "./eventually.ts";
import { Lab } from "./lab.ts";
import { scenario } from "./scenario.ts";
import type { EditorWindow } from "./window.ts";

const FIND = "\n    def find(self, name: str) -> Item:\n        ";

describe("processes", () => {
  let lab: Lab;
  let window: EditorWindow;

  before(async () => {
    lab = await Lab.start({ name: "lifecycle" });
    window = await lab.open("shop.py");
    await window.untilReady();
  });
  after(() => lab?.stop());

  const inEditor = (name: string, run: (window: EditorWindow) => Promise<void>): void => scenario(name, () => window, run);

  async function suggests(inWindow: EditorWindow, file: string): Promise<void> {
    await lab.write(file, FIND);
    await inWindow.openFile(file);
    await inWindow.press("Control+End");
    await inWindow.type("return ");
    await inWindow.untilGhost();
    await inWindow.press("Escape");
  }

  inEditor("a second window has a language server of its own and the same backend", async () => {
    await suggests(window, "first.py");
    const backends = await lab.backendIds();
    assert.equal(backends.length, 1);
    const second = await lab.open("orders.py");
    await second.untilReady();
    await suggests(second, "second.py");
    await second.screenshot("01 second window");
    assert.deepEqual(await lab.backendIds(), backends);
    assert.equal((await lab.languageServerIds()).length, 2);
    await second.close();
    await eventually("the closed window's language server ends", async () => (await lab.languageServerIds()).length === 1);
    await suggests(window, "still.py");
  });

  inEditor("a killed backend is seen in the status, and comes back by itself", async () => {
    const [backend] = await lab.backendIds();
    assert.ok(backend);
    await window.watchStatus();
    process.kill(backend, "SIGKILL");
    await eventually("the status tells of the loss, however briefly", async () =>
      (await window.statusHistory()).some((status) => /Forelook (error|starting|loading)/.test(status)),
    );
    await window.screenshot("02 backend killed");
    await window.untilReady();
    const [successor] = await lab.backendIds();
    assert.notEqual(successor, backend);
    await suggests(window, "healed.py");
    await window.screenshot("03 healed");
  });

  inEditor("a killed language server is started again", async () => {
    const [server] = await lab.languageServerIds();
    assert.ok(server);
    process.kill(server, "SIGKILL");
    await eventually("another language server", async () => {
      const [successor] = await lab.languageServerIds();
      return successor !== undefined && successor !== server;
    });
    await window.untilReady();
    await suggests(window, "restarted.py");
  });

  inEditor("a model that is not there is told in the status; the right one heals it", async () => {
    await window.editMachineSettings({ ...Lab.machineSettings, "forelook.model": "/nowhere/model" });
    await window.untilStatus(/Forelook error/);
    assert.match(await window.statusDetail(), /\/nowhere\/model/);
    await window.screenshot("04 no such model");
    await window.editMachineSettings(Lab.machineSettings);
    await window.untilReady();
    await suggests(window, "model.py");
  });

  inEditor("Restart starts a new backend and a new language server", async () => {
    const before = [...(await lab.backendIds()), ...(await lab.languageServerIds())];
    await window.command("Forelook: Restart");
    await eventually("both are new", async () => {
      const [backends, servers] = [await lab.backendIds(), await lab.languageServerIds()];
      // A backend for another model, such as that of the test before, is nobody's business here.
      const isNew = (id: number): boolean => !before.includes(id);
      return backends.some(isNew) && servers.length === 1 && servers.every(isNew);
    });
    await window.untilReady();
    await suggests(window, "anew.py");
  });

  inEditor("the workspace's pool can be cleared", async () => {
    await window.command("Forelook: Clear What Was Learned");
    await window.page.locator(".monaco-dialog-box .monaco-button", { hasText: "Clear" }).click();
    await eventually("it is said to be empty", async () =>
      (await window.page.locator(".statusbar", { hasText: "the workspace's pool is empty" }).count()) > 0,
    );
  });
});
