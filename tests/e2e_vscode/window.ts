/** One VS Code window in the browser, in the words of someone who uses it. */

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { errors, type Page } from "playwright-core";
import { eventually } from "./eventually.ts";

const EDITOR = ".editor-instance .monaco-editor";
const STATUS_ITEM = '.statusbar-item[id="forelook.forelook.forelook.status"]';

export class EditorWindow {
  readonly page: Page;
  private readonly workspace: string;
  private readonly artifacts: string;

  constructor(page: Page, workspace: string, artifacts: string) {
    this.page = page;
    this.workspace = workspace;
    this.artifacts = artifacts;
  }

  /** The status item's text, without its icon. */
  async status(): Promise<string> {
    const texts = await this.page.locator(STATUS_ITEM).allInnerTexts();
    return visible(texts.join(" ")).trim();
  }

  /** The label read out for the status item: its tooltip in one line. */
  async statusDetail(): Promise<string> {
    return (await this.page.locator(`${STATUS_ITEM} [aria-label]`).first().getAttribute("aria-label")) ?? "";
  }

  async untilStatus(pattern: RegExp, timeoutMs = 90_000): Promise<string> {
    try {
      return await eventually(`the status item shows ${pattern}`, async () => {
        const status = await this.status();
        return pattern.test(status) ? status || " " : undefined;
      }, timeoutMs);
    } catch (error) {
      throw new Error(`${(error as Error).message}, but ${await this.statusDetail().catch(() => "nothing")}`);
    }
  }

  /** Waits until the editor is there and the model is ready. */
  async untilReady(): Promise<void> {
    await this.page.locator(`${EDITOR} .view-line`).first().waitFor();
    await this.untilStatus(/starter-model|smollm2-135m/);
  }

  /** What the status item has shown since `watchStatus`, each text once. */
  async statusHistory(): Promise<string[]> {
    const texts = await this.page.evaluate(() => (globalThis as unknown as Watched).forelookStatus ?? []);
    return texts.map((text) => visible(text).trim());
  }

  /** Keeps what the status item shows from now on, however briefly. */
  async watchStatus(): Promise<void> {
    await this.page.evaluate((item) => {
      const seen = new Set<string>();
      const look = (): void => {
        const text = document.querySelector(item)?.textContent;
        if (text) {
          seen.add(text);
          (globalThis as unknown as Watched).forelookStatus = [...seen];
        }
      };
      new MutationObserver(look).observe(document.body, { subtree: true, childList: true, characterData: true });
      look();
    }, STATUS_ITEM);
  }

  /** Points at the status item and reads its tooltip, which stays open. */
  async statusTooltip(): Promise<string> {
    await this.page.locator(STATUS_ITEM).hover();
    const tooltip = this.page.locator(".monaco-hover", { hasText: "Forelook" }).last();
    await tooltip.waitFor();
    return visible(await tooltip.innerText());
  }

  async clickStatus(): Promise<void> {
    await this.page.locator(STATUS_ITEM).click();
  }

  /** Writes a path into VS Code's own dialog for files and folders, and takes it. */
  async chooseInDialog(file: string): Promise<void> {
    const dialog = this.page.locator(".quick-input-widget");
    const input = dialog.locator("input").first();
    const button = dialog.locator(".quick-input-action .monaco-button", { hasText: /OK|Use/ }).first();
    await button.waitFor();
    // The dialog writes the folder it starts in when it has read it, over or before what stands there.
    await eventually("the dialog has its own folder", async () => (await input.inputValue()).startsWith("/"));
    await eventually("the path stands in the dialog", async () => {
      await input.fill(file);
      await this.page.waitForTimeout(300);
      return (await input.inputValue()) === file;
    });
    await button.click();
  }

  /** The lines of the editor that are on the screen. */
  async editorText(): Promise<string> {
    const lines = await this.page.locator(`${EDITOR} .view-lines > .view-line`).allInnerTexts();
    return visible(lines.join("\n"));
  }

  /** Opens a file of the workspace in the editor. */
  async openFile(name: string): Promise<void> {
    await this.open(name);
    await this.focusEditor();
  }

  /** Opens a file of the workspace in whatever shows it. */
  async open(name: string): Promise<void> {
    await this.pick("Control+p", path.join(this.workspace, name), path.basename(name));
    await this.page.locator(".tab.active", { hasText: path.basename(name) }).waitFor();
  }

  /** Runs a command by its title in the palette. */
  async command(title: string): Promise<void> {
    await this.pick("F1", `>${title}`, title);
  }

  /** Opens a quick pick, and again where something else took the focus from it; waits until it offers `entry` first. */
  private async pick(key: string, text: string, entry: string): Promise<void> {
    await eventually(`${entry} is offered`, async () => {
      try {
        await this.press(key);
        await this.page.locator(".quick-input-widget input").first().fill(text, { timeout: 2_000 });
        // The list shows what was used last, for a moment.
        const row = this.page.locator(".quick-input-list .monaco-list-row.focused", { hasText: entry });
        await row.waitFor({ timeout: 5_000 });
        return true;
      } catch (error) {
        if (!(error instanceof errors.TimeoutError)) {
          throw error;
        }
        await this.press("Escape");
        return false;
      }
    });
    await this.press("Enter");
  }

  /** Replaces the machine's settings as a person does, in their file: a window does not see it change on the disk. */
  async editMachineSettings(settings: Readonly<Record<string, unknown>>): Promise<void> {
    await this.command("Preferences: Open Remote Settings (JSON)");
    const tab = this.page.locator(".tab.active", { hasText: "settings.json" });
    await tab.waitFor();
    await this.focusEditor();
    await this.press("Control+a");
    await this.page.keyboard.insertText(JSON.stringify(settings));
    await this.press("Control+s");
    await eventually("the settings are saved", async () => (await this.page.locator(".tab.active.dirty").count()) === 0);
    await tab.locator(".tab-actions .action-label").first().click();
    await tab.waitFor({ state: "detached" });
  }

  async focusEditor(): Promise<void> {
    await this.press("Control+1");
    await this.page.locator(`${EDITOR}.focused`).first().waitFor();
  }

  async press(key: string): Promise<void> {
    await this.page.keyboard.press(key);
  }

  /** Types as a person does, key by key. */
  async type(text: string, delayMs = 40): Promise<void> {
    for (const line of text.split(/(\n)/)) {
      if (line === "\n") {
        await this.page.keyboard.press("Enter");
      } else {
        await this.page.keyboard.type(line, { delay: delayMs });
      }
    }
  }

  /** The suggestion in grey, its lines joined; empty where none is shown. */
  async ghost(): Promise<string> {
    return this.page.evaluate((editor) => {
      const root = document.querySelector(editor);
      if (!root) {
        return "";
      }
      const inLine = [...root.querySelectorAll(".ghost-text-decoration, .ghost-text-decoration-preview")];
      const below = [...root.querySelectorAll(".suggest-preview-text .view-line, .ghost-text .view-line")];
      const first = inLine.map((part) => part.textContent).join("");
      return [first, ...below.map((line) => line.textContent)].join("\n").replaceAll("\u00a0", " ").trimEnd();
    }, EDITOR);
  }

  /** Waits for a suggestion, one that `accept` agrees with where given. */
  async untilGhost(accept: (text: string) => boolean = () => true, what = "a suggestion is shown"): Promise<string> {
    let last = "";
    return eventually(what, async () => {
      const text = await this.ghost();
      // Lines of a suggestion are painted one after the other: what was read twice is whole.
      const isSteady = text === last;
      last = text;
      return isSteady && text.trim() !== "" && accept(text) ? text : undefined;
    }, 30_000);
  }

  async untilNoGhost(): Promise<void> {
    await eventually("no suggestion is shown", async () => (await this.ghost()) === "", 10_000);
  }

  /** Saves until the file on the disk is as `expected`. */
  async untilSaved(name: string, expected: string | ((text: string) => boolean)): Promise<string> {
    const file = path.join(this.workspace, name);
    const isAsExpected = typeof expected === "string" ? (text: string) => text === expected : expected;
    try {
      return await eventually(`${name} is saved as expected`, async () => {
        await this.press("Control+s");
        const text = await readFile(file, "utf8");
        return isAsExpected(text) ? text : undefined;
      }, 8_000);
    } catch (error) {
      assert.equal(await readFile(file, "utf8"), expected);
      throw error;
    }
  }

  /** The line with the cursor, without the suggestion in it. */
  async cursorLine(): Promise<string> {
    return this.page.evaluate((editor) => {
      const root = document.querySelector(editor);
      const cursor = root?.querySelector(".cursors-layer .cursor");
      if (!root || !cursor) {
        return "";
      }
      const middle = cursor.getBoundingClientRect().top + cursor.getBoundingClientRect().height / 2;
      for (const line of root.querySelectorAll(".view-lines > .view-line")) {
        const box = line.getBoundingClientRect();
        if (box.top <= middle && middle <= box.bottom) {
          const copy = line.cloneNode(true) as Element;
          copy.querySelectorAll(".ghost-text-decoration").forEach((part) => part.remove());
          return (copy.textContent ?? "").replaceAll("\u00a0", " ");
        }
      }
      return "";
    }, EDITOR);
  }

  async screenshot(name: string): Promise<void> {
    // What fades in is there; what turns round for ever is not waited for.
    await this.page.evaluate(() => {
      const ending = document.getAnimations().filter(({ effect }) => effect?.getComputedTiming().endTime !== Infinity);
      return Promise.allSettled(ending.map(({ finished }) => finished)).then(() => undefined);
    });
    await this.page.screenshot({ path: path.join(this.artifacts, `${name}.png`) });
  }

  /** A part of the window, as a README shows it. */
  async portrait(name: string, clip: { x: number; y: number; width: number; height: number }): Promise<void> {
    await this.page.screenshot({ path: path.join(this.artifacts, `${name}.png`), clip });
  }

  async close(): Promise<void> {
    await this.page.context().close();
  }
}

interface Watched {
  forelookStatus?: string[];
}

function visible(text: string): string {
  return text.replaceAll("\u00a0", " ").replace(/[\ue000-\uf8ff]/g, "");
}
