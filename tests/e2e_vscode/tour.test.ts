/** What the README shows: a minute with Forelook, recorded from a real window. */

import assert from "node:assert/strict";
import { readFile, stat, writeFile } from "node:fs/promises";
import path from "node:path";
import { after, before, describe } from "node:test";
import { Lab } from "./lab.ts";
import { Recorder } from "./recorder.ts";
import { scenario } from "./scenario.ts";
import type { EditorWindow } from "./window.ts";

const MAX_BYTES = 1_000_000;
/** The screencast mode shows the keys that are pressed, which is what a picture cannot. */
const SCREENCAST = {
  "screencastMode.fontSize": 22,
  "screencastMode.verticalOffset": 6,
  "screencastMode.keyboardOverlayTimeout": 1200,
  "screencastMode.keyboardOptions": {
    showKeys: false,
    showKeybindings: true,
    showCommands: false,
    showCommandGroups: false,
    showSingleEditorCursorMoves: false,
  },
};

describe("a tour", () => {
  let lab: Lab;
  let window: EditorWindow;

  before(async () => {
    const settings = {
      ...SCREENCAST,
      "workbench.colorTheme": "Default Dark Modern",
      "workbench.activityBar.location": "hidden",
      "workbench.layoutControl.enabled": false,
      "breadcrumbs.enabled": false,
      "editor.fontSize": 15,
      "editor.lineNumbers": "off",
      "editor.folding": false,
      "window.commandCenter": false,
      // A person pauses to read; a script that takes pictures never does.
      "forelook.delayMs": 600,
    };
    lab = await Lab.start({ name: "tour", settings, lendsModels: true });
    window = await lab.open("shop.py", { viewport: { width: 760, height: 540 } });
    await window.untilReady();
  });
  after(() => lab?.stop());

  scenario("ghost text is taken whole, word by word, and typed through", () => window, async () => {
    await writeFile(path.join(lab.workspace, "cart.py"), await beginning());
    await window.command("View: Close Primary Side Bar");
    await window.openFile("cart.py");
    await window.press("Control+End");
    await window.command("Developer: Toggle Screencast Mode");
    await window.focusEditor();
    const recorder = new Recorder(window.page, path.join(lab.artifacts, "frames"));
    const key = async (name: string, ms: number): Promise<void> => {
      await window.press(name);
      await recorder.settle();
      await recorder.frame(ms);
    };
    const left = async (): Promise<string> => {
      await recorder.settle();
      return window.ghost();
    };

    await recorder.settle(2_000);
    await recorder.frame(800);
    await recorder.type("    def find(self, name: str) -> Item:\n");
    await window.untilGhost();
    await recorder.frame(2_000);
    await key("Tab", 1_500);

    await recorder.type("\n");
    await window.press("Shift+Tab");
    await window.press("Shift+Tab");
    await recorder.type("\n    def count(self) -> int:\ncount = 0\n");
    await window.untilGhost();
    await recorder.frame(1_500);
    // How much there is to take is the model's to say: another one says something else.
    for (let word = 0; word < 3 && (await left()).length > 20; word += 1) {
      await key("Control+ArrowRight", 600);
    }
    const [line = ""] = (await left()).split("\n");
    await recorder.type(line.slice(0, 12), 160);
    await recorder.frame(1_000);
    if ((await left()) !== "") {
      await key("Tab", 2_500);
    }

    const file = path.join(lab.artifacts, "forelook.gif");
    await recorder.save(file);
    assert.ok((await stat(file)).size < MAX_BYTES);
  });

  /** The beginning of a class like one that the workspace has. */
  async function beginning(): Promise<string> {
    const shop = await readFile(path.join(lab.workspace, "shop.py"), "utf8");
    const [load, remove] = [shop.indexOf("    def load"), shop.indexOf("    def remove")];
    const add = shop.indexOf("    def add");
    return shop.slice(shop.indexOf("class Shop"), load) + shop.slice(add, remove);
  }
});
