/** Waiting for what comes in its own time: poll, with a deadline that says what did not come. */

import { setTimeout as pause } from "node:timers/promises";

const POLL_MS = 50;

/** Waits until `check` gives something true, and returns it. */
export async function eventually<T>(
  what: string,
  check: () => Promise<T | undefined | false> | T | undefined | false,
  timeoutMs = 60_000,
): Promise<T> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const value = await check();
    if (value !== undefined && value !== false) {
      return value;
    }
    if (performance.now() > deadline) {
      throw new Error(`not within ${timeoutMs / 1000} s: ${what}`);
    }
    await pause(POLL_MS);
  }
}

/** Sees to it that `check` stays false for a while: for what must not come. */
export async function neverWithin(what: string, check: () => Promise<boolean>, periodMs: number): Promise<void> {
  const deadline = performance.now() + periodMs;
  while (performance.now() < deadline) {
    if (await check()) {
      throw new Error(`it came: ${what}`);
    }
    await pause(POLL_MS);
  }
}
