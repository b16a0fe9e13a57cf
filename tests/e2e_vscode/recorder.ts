/** Records a window as an animated picture: a frame whenever it is told to, each with its time on the screen. */

import { spawnSync } from "node:child_process";
import { mkdir, writeFile } from "node:fs/promises";
import path from "node:path";
import type { Page } from "playwright-core";
import { Lab } from "./lab.ts";

/** A picture shows what stands there in the end: nothing depends on it. */
const SETTLE_MS = 250;

export class Recorder {
  private readonly frames: { readonly file: string; readonly ms: number }[] = [];
  private readonly page: Page;
  private readonly folder: string;

  constructor(page: Page, folder: string) {
    this.page = page;
    this.folder = folder;
  }

  /** Takes a frame that is shown for `ms`. */
  async frame(ms: number): Promise<void> {
    await mkdir(this.folder, { recursive: true });
    const file = `${String(this.frames.length).padStart(3, "0")}.png`;
    await this.page.screenshot({ path: path.join(this.folder, file) });
    this.frames.push({ file, ms });
  }

  /** Waits until what was asked for a moment ago is painted. */
  async settle(ms = SETTLE_MS): Promise<void> {
    await this.page.waitForTimeout(ms);
  }

  /** Types key by key, with a frame for each. */
  async type(text: string, ms = 70): Promise<void> {
    for (const key of text) {
      await this.page.keyboard.press(key === "\n" ? "Enter" : key);
      await this.frame(ms);
    }
  }

  /** Writes the frames as one GIF. */
  async save(file: string): Promise<void> {
    const list = path.join(this.folder, "frames.json");
    await writeFile(list, JSON.stringify(this.frames));
    const animate = path.join(import.meta.dirname, "animate.py");
    const finished = spawnSync(Lab.python, [animate, list, file], { encoding: "utf8" });
    if (finished.status !== 0) {
      throw new Error(`${file} could not be written: ${finished.stderr || String(finished.error)}`);
    }
  }
}
