/** The way a suggestion goes, in a real VS Code with the real language server, backend and starter model. */

import assert from "node:assert/strict";
import { after, afterEach, before, describe, test } from "node:test";
import { Lab } from "./lab.ts";
import type { EditorWindow } from "./window.ts";

const BEGINNING = "\n    def find(self, name: str) -> Item:\n        return ";

describe("suggestions", () => {
  let lab: Lab;
  let window: EditorWindow;

  before(async () => {
    lab = await Lab.start({ name: "suggestions" });
    window = await lab.open("shop.py");
    await window.untilReady();
  });

  after(() => lab?.stop());

  test("typing in a file shows a suggestion, and Tab puts it into the file", async () => {
    await window.startLineAtEnd();
    await window.type("    def find(self, name: str) -> Item:\n");
    await window.type("return ");
    const ghost = await window.untilGhost();
    await window.portrait("ghost-text");
    const before = await window.cursorLine();
    await window.press("Tab");
    await window.untilNoGhost().catch(() => undefined);
    assert.ok((await window.saved("shop.py")).includes(before.trimEnd() + " " + ghost.trim()));
    void BEGINNING;
  });
});
void afterEach;
