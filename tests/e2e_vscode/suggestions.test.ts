/** The way a suggestion goes, in a real VS Code with the real language server, backend and starter model. */

import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { after, before, describe } from "node:test";
import { eventually, neverWithin } from "./eventually.ts";
import { Lab } from "./lab.ts";
import { scenario } from "./scenario.ts";
import type { EditorWindow } from "./window.ts";

const FIND = "\n    def find(self, name: str) -> Item:\n        ";
const LONG_ENOUGH_MS = 2_000;

describe("suggestions", () => {
  let lab: Lab;
  let window: EditorWindow;

  before(async () => {
    lab = await Lab.start({ name: "suggestions" });
    window = await lab.open("shop.py");
    await window.untilReady();
  });
  after(() => lab?.stop());

  const inEditor = (name: string, run: (window: EditorWindow) => Promise<void>): void => scenario(name, () => window, run);

  /** Opens a file that ends in the middle of a function and types the rest of the way to a suggestion. */
  async function provoke(file: string, typed = "return ", beginning = FIND): Promise<string> {
    await lab.write(file, beginning);
    await window.openFile(file);
    await window.press("Control+End");
    await window.type(typed);
    return window.untilGhost();
  }

  inEditor("typing in a file shows a suggestion, and Tab puts it into the file", async () => {
    const ghost = await provoke("whole.py");
    await window.screenshot("01 ghost text");
    await window.press("Tab");
    await window.untilSaved("whole.py", await expected(`return ${ghost}`));
    await window.screenshot("02 accepted");
  });

  inEditor("Ctrl+Right takes the next word and leaves the rest as suggestion", async () => {
    const ghost = await provoke("word.py");
    await window.press("Control+ArrowRight");
    const rest = await window.untilGhost((text) => text.length < ghost.length && ghost.endsWith(text));
    const taken = ghost.slice(0, ghost.length - rest.length);
    assert.match(taken, /\w/);
    await window.screenshot("03 accepted a word");
    await window.untilSaved("word.py", await expected(`return ${taken}`));
  });

  inEditor("a line at a time can be taken", async () => {
    const beginning = FIND.trimEnd();
    const ghost = await provoke("line.py", "\n", beginning);
    const [first = "", ...rest] = ghost.split("\n");
    await window.screenshot("04 several lines");
    assert.ok(rest.some((line) => line.trim() !== ""), `the suggestion has several lines: ${JSON.stringify(ghost)}`);
    await window.press("Control+Alt+l");
    const shop = await readFile(path.join(lab.workspace, "shop.py"), "utf8");
    const taken = `${shop}${beginning}\n        ${first}`;
    await window.untilSaved("line.py", (text) => text.trimEnd() === taken.trimEnd());
  });

  inEditor("what is typed as suggested is taken off the suggestion, which stays", async () => {
    const ghost = await provoke("through.py");
    for (let typed = 1; typed <= 4; typed += 1) {
      await window.type(ghost.charAt(typed - 1));
      assert.equal(await window.untilGhost((text) => text === ghost.slice(typed), `the rest after ${typed} characters`), ghost.slice(typed));
    }
    await window.press("Tab");
    await window.untilSaved("through.py", await expected(`return ${ghost}`));
  });

  inEditor("Escape takes the suggestion away and leaves the document", async () => {
    await provoke("escape.py");
    await window.press("Escape");
    await window.untilNoGhost();
    await window.untilSaved("escape.py", await expected("return "));
  });

  inEditor("asked for by a key, there are alternatives to cycle through", async () => {
    // Here the starter model has several different ideas.
    const typed = "assert name; return self.";
    const first = await provoke("alternatives.py", typed);
    await window.press("Escape");
    await window.press("Alt+Backslash");
    await window.untilGhost();
    await window.press("Alt+BracketRight");
    const second = await window.untilGhost((text) => text !== first, "another suggestion");
    await window.screenshot("05 an alternative");
    await window.press("Tab");
    await window.untilSaved("alternatives.py", await expected(`${typed}${second}`));
  });

  inEditor("switched off, nothing is suggested, and the status says so; switched on, it is again", async () => {
    await window.command("Forelook: Switch Suggestions On or Off Everywhere");
    await window.untilStatus(/^Forelook$/);
    assert.match(await window.statusDetail(), /paused/);
    await window.screenshot("06 paused");
    await lab.write("off.py", FIND);
    await window.openFile("off.py");
    await window.press("Control+End");
    await window.type("return ");
    await neverWithin("a suggestion while switched off", async () => (await window.ghost()) !== "", LONG_ENOUGH_MS);
    await window.command("Forelook: Switch Suggestions On or Off Everywhere");
    await window.untilStatus(/starter-model/);
    await provoke("on.py");
  });

  inEditor("one language can be switched off", async () => {
    await lab.write("language.py", FIND);
    await window.openFile("language.py");
    await window.command("Forelook: Switch Suggestions On or Off in This Language");
    await eventually("the status names the language", async () => /paused in python/.test(await window.statusDetail()));
    const settings = JSON.parse(await readFile(lab.settingsFile, "utf8")) as Record<string, unknown>;
    assert.deepEqual(settings["forelook.languages"], { python: false });
    await window.focusEditor();
    await window.press("Control+End");
    await window.type("return ");
    await neverWithin("a suggestion in this language", async () => (await window.ghost()) !== "", LONG_ENOUGH_MS);
    await window.command("Forelook: Switch Suggestions On or Off in This Language");
    await window.untilStatus(/starter-model/);
  });

  inEditor("a file with Windows line ends keeps them", async () => {
    await lab.write("windows.py", "\n    def __len__(self) -> int:\n        ", (text) => text.replaceAll("\n", "\r\n"));
    await window.openFile("windows.py");
    await window.press("Control+End");
    await window.type("return ");
    const ghost = await window.untilGhost();
    await window.press("Tab");
    const text = await window.untilSaved("windows.py", (text) => text.includes(`return ${ghost.split("\n")[0]}`));
    assert.equal(text.replaceAll("\r\n", "").match(/[\r\n]/), null, "every line ends with \\r\\n");
  });

  inEditor("letters beyond ASCII before the cursor do not shift the suggestion", async () => {
    const typed = 'assert name != "é→ß"; return self.';
    const ghost = await provoke("unicode.py", typed);
    await window.press("Tab");
    await window.untilSaved("unicode.py", await expected(`${typed}${ghost}`));
  });

  inEditor("letters outside the basic plane before the cursor do not hide the suggestion", async () => {
    const typed = 'assert name != "🙂"; return self.';
    const ghost = await provoke("emoji.py", typed);
    await window.screenshot("07 emoji before the cursor");
    await window.press("Tab");
    await window.untilSaved("emoji.py", await expected(`${typed}${ghost}`));
  });

  inEditor("a notebook's cell gets suggestions", async () => {
    const shop = await readFile(path.join(lab.workspace, "shop.py"), "utf8");
    const source = shop.slice(shop.indexOf("class Shop"), shop.indexOf("    def load")).trimEnd() + `\n${FIND}`;
    const cells = [{ cell_type: "code", source, metadata: {}, outputs: [], execution_count: null }];
    await writeFile(path.join(lab.workspace, "shop.ipynb"), JSON.stringify({ cells, metadata: {}, nbformat: 4, nbformat_minor: 5 }));
    await window.open("shop.ipynb");
    const cell = window.page.locator(".cell-editor-part").first();
    await cell.click();
    await cell.locator(".monaco-editor.focused").waitFor();
    await window.press("Control+End");
    await window.type("return ");
    const ghost = cell.locator(".ghost-text-decoration").first();
    await ghost.waitFor();
    await window.screenshot("08 notebook");
    const text = (await ghost.textContent()) ?? "";
    await window.press("Tab");
    const taken = JSON.stringify(`return ${text.replaceAll("\u00a0", " ").trimEnd()}`).slice(1, -1);
    await window.untilSaved("shop.ipynb", (saved) => saved.includes(taken));
  });

  inEditor("an untitled file gets suggestions", async () => {
    await window.command("Forelook: Try It in a New File");
    await window.untilGhost();
    await window.screenshot("09 untitled");
    await window.press("Tab");
    await window.press("Control+a");
    await window.press("Delete");
  });

  inEditor("the status item's tooltip has the figures", async () => {
    const tooltip = await window.statusTooltip();
    await window.portrait("10 tooltip", { x: 560, y: 370, width: 440, height: 270 });
    assert.match(tooltip, /Model: starter-model/);
    assert.match(tooltip, /Device: cpu/);
    assert.match(tooltip, /Last suggestion: \d+ ms/);
    assert.match(tooltip, /Tokens per decode step: \d+\.\d\d/);
    assert.match(tooltip, /Accepted: [1-9]\d*%/);
    assert.match(tooltip, /Pool: [1-9][\d,]* tokens/);
    await window.focusEditor();
  });

  inEditor("what was accepted, whole, by word and by line, is counted, as counts", async () => {
    await eventually("acceptances are counted", () => {
      const statistics = lab.forelook("stats", "--json");
      return ["accepted", "accepted_word", "accepted_line"].every((kind) => new RegExp(`"${kind}": *[1-9]`).test(statistics));
    });
    await window.command("Forelook: Show Statistics");
    await eventually("the page of statistics", async () => {
      for (const frame of window.page.frames()) {
        const title = frame.locator("h1", { hasText: "Forelook statistics" });
        // A frame that is replaced while it is asked has no title.
        if ((await title.count().catch(() => 0)) > 0) {
          return true;
        }
      }
      return false;
    });
    await window.portrait("11 statistics", { x: 303, y: 36, width: 694, height: 604 });
  });

  /** A file with `end` after what `provoke` began. */
  async function expected(end: string): Promise<string> {
    return (await readFile(path.join(lab.workspace, "shop.py"), "utf8")) + FIND + end;
  }
});
