/** One test in the editor: a screenshot tells what was seen when it fails. */

import { test } from "node:test";
import type { EditorWindow } from "./window.ts";

/**
 * Defines a test over `window`, which exists once the tests run.
 *
 * @param knownFault why it is known to fail; it is run and reported, and fails nothing
 */
export function scenario(
  name: string,
  window: () => EditorWindow,
  run: (window: EditorWindow) => Promise<void>,
  knownFault?: string,
): void {
  test(name, knownFault === undefined ? {} : { todo: knownFault }, async () => {
    try {
      await run(window());
    } catch (error) {
      await window().screenshot(`failed ${name.replace(/[^a-z0-9]+/gi, " ").trim()}`).catch(() => undefined);
      throw error;
    }
  });
}
