/** One test in the editor: a screenshot tells what was seen when it fails. */

import { test } from "node:test";
import type { EditorWindow } from "./window.ts";

/** Defines a test over `window`, which exists once the tests run. */
export function scenario(name: string, window: () => EditorWindow, run: (window: EditorWindow) => Promise<void>): void {
  test(name, async () => {
    try {
      await run(window());
    } catch (error) {
      await window().screenshot(`failed ${name.replace(/[^a-z0-9]+/gi, " ").trim()}`).catch(() => undefined);
      throw error;
    }
  });
}
